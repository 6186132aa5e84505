import { dtypeBytes, embedding, embeddingBackward, fill, numelOf, Tensor } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

const dtypes = ['f32', 'bf16', 'f16'] as const;

function shape(R: number, V: number, C: number, dtype: OpCase['dtype'], more: Partial<OpCase> = {}): OpCase {
  return {
    name: `[${R}] of [${V}, ${C}] ${dtype}${more.name ?? ''}`,
    dtype,
    inputs: {
      ids: { shape: [R], dtype: 'i32', value: (random) => random.integer(V) },
      table: { shape: [V, C] },
    },
    ...(more.parameters ? { parameters: more.parameters } : {}),
    ...(more.bench ? { bench: true } : {}),
  };
}

export const embeddingCases: OpCases = {
  op: 'embedding',
  cases: [
    ...dtypes.flatMap((dtype) => [
      shape(1, 1, 1, dtype),
      shape(9, 5, 7, dtype),
      shape(9, 5, 7, dtype, { name: ', accumulated', parameters: { accumulate: true } }),
      shape(0, 5, 16, dtype),
      shape(300, 2500, 9, dtype),
      shape(100, 13, 1030, dtype, { name: ', accumulated', parameters: { accumulate: true } }),
    ]),
    shape(512, 250880, 1024, 'f32', { name: ' (BLOOM-560m)', bench: true }),
    shape(4096, 250880, 1024, 'bf16', {
      name: ' (BLOOM-560m), accumulated',
      bench: true,
      parameters: { accumulate: true },
    }),
  ],
  run: ({ ids, table }) => ({ y: embedding(ids!, table!) }),
  backward: {
    outputs: ['y'],
    run({ ids, table }, _, { y: dy }, { accumulate = false }) {
      const dtable = Tensor.empty(table!.shape, { dtype: table!.dtype, device: table!.device });
      if (accumulate) fill(dtable, 0);
      return { table: embeddingBackward(dy!, ids!, dtable, accumulate as boolean) };
    },
  },
  sumLength: (c) => c.inputs.ids!.shape[0]!,
  bytes: (c) => 2 * numelOf(c.inputs.ids!.shape) * c.inputs.table!.shape[1]! * dtypeBytes[c.dtype],
  flops: () => 0,
};
