import { dtypeBytes, numelOf, softmaxCrossEntropy } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

const dtypes = ['f32', 'bf16', 'f16'] as const;

function shape(R: number, V: number, dtype: OpCase['dtype'], more: Partial<OpCase> = {}): OpCase {
  return {
    name: `[${R}, ${V}] ${dtype}${more.name ?? ''}`,
    dtype,
    inputs: {
      logits: { shape: [R, V], value: (random) => 4 * random.normal() },
      // Every fifth row does not count; the first and the last class occur.
      targets: {
        shape: [R],
        dtype: 'i32',
        value: (random, i) => (i % 5 === 4 ? -100 : i === 0 ? V - 1 : i === 1 ? 0 : random.integer(V)),
      },
    },
    parameters: { scale: 1 / R },
    ...(more.bench ? { bench: true } : {}),
  };
}

export const softmaxCrossEntropyCases: OpCases = {
  op: 'softmax_cross_entropy',
  cases: [
    ...dtypes.flatMap((dtype) => [
      shape(1, 1, dtype),
      shape(6, 7, dtype),
      shape(3, 64, dtype),
      shape(0, 9, dtype),
      shape(20, 1000, dtype),
      shape(2, 40000, dtype),
    ]),
    shape(17, 9000, 'f32'),
    shape(2, 250880, 'f32', { name: ' (BLOOM)' }),
    shape(64, 250880, 'f32', { name: ' (BLOOM)', bench: true }),
    shape(64, 250880, 'bf16', { name: ' (BLOOM)', bench: true }),
    shape(2048, 8192, 'f32', { bench: true }),
  ],
  // The gradient has one factor for all rows, so it is an output here; its finite differences are in the test beside.
  run({ logits, targets }, { scale }) {
    return { ...softmaxCrossEntropy(logits!, targets!, { gradient: 'new', scale: scale as number }) };
  },
  sumLength: (c) => c.inputs.logits!.shape[1]!,
  bytes: (c) => 2 * numelOf(c.inputs.logits!.shape) * dtypeBytes[c.dtype],
  flops: (c) => 30 * numelOf(c.inputs.logits!.shape),
};
