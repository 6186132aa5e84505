import { dropout, dtypeBytes, numelOf } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

const dtypes = ['f32', 'bf16', 'f16'] as const;

function shape(shape: number[], dtype: OpCase['dtype'], parameters: OpCase['parameters'], residual: boolean): OpCase {
  return {
    name: `[${shape}] ${dtype}, p ${parameters?.p}${residual ? ' + residual' : ''}`,
    dtype,
    inputs: { x: { shape }, ...(residual ? { residual: { shape } } : {}) },
    ...(parameters ? { parameters } : {}),
  };
}

export const dropoutCases: OpCases = {
  op: 'dropout',
  cases: [
    ...dtypes.flatMap((dtype) => [
      shape([1], dtype, { p: 0.5, seed: 1, offset: 0 }, false),
      shape([0], dtype, { p: 0.5, seed: 1, offset: 0 }, true),
      shape([3, 7], dtype, { p: 0, seed: 3, offset: 0 }, true),
      shape([3, 43], dtype, { p: 0.1, seed: 4, offset: 7 }, true),
      shape([3, 43], dtype, { p: 0.9, seed: 2 ** 40 + 5, offset: 2 ** 32 - 4 }, false),
      shape([16405], dtype, { p: 0.3, seed: 7, offset: 2 ** 40 }, false),
    ]),
    { ...shape([512, 1024], 'f32', { p: 0.1, seed: 1, offset: 0 }, true), bench: true },
    { ...shape([512, 1024], 'bf16', { p: 0.1, seed: 1, offset: 0 }, true), bench: true },
  ],
  run({ x, residual }, { p, seed, offset }) {
    const random = { p: p as number, seed: seed as number, offset: offset as number };
    return { y: dropout(x!, { ...random, ...(residual ? { residual } : {}) }) };
  },
  backward: {
    outputs: ['y'],
    run({ residual }, _, { y: dy }, { p, seed, offset }) {
      const x = dropout(dy!, { p: p as number, seed: seed as number, offset: offset as number });
      return { x, ...(residual ? { residual: dy!.view(dy!.shape) } : {}) };
    },
  },
  bytes: (c) => numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype] * (c.inputs.residual ? 3 : 2),
  flops: (c) => numelOf(c.inputs.x!.shape) * 2,
};
