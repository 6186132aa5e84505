import { layerNorm, layerNormBackward, Tensor } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';
import { bytesOfRows, rows } from './cases';

function shape(R: number, C: number, dtype: OpCase['dtype'], extra: Partial<OpCase> = {}, residual = false): OpCase {
  return rows(R, C, dtype, { ...extra, inputs: { bias: { shape: [C] } } }, residual);
}

const dtypes = ['f32', 'bf16', 'f16'] as const;

export const layerNormCases: OpCases = {
  op: 'layer_norm',
  cases: [
    ...dtypes.flatMap((dtype) => [
      // One column is its own mean: dx is 0, the difference of terms of the size of rstd = 1 / sqrt(eps).
      { ...shape(1, 1, dtype), termScale: 316 },
      shape(3, 7, dtype),
      shape(3, 7, dtype, {}, true),
      shape(5, 64, dtype, {}, true),
      shape(2, 129, dtype),
      shape(0, 16, dtype),
      shape(33, 1000, dtype, {}, true),
    ]),
    shape(4, 48, 'f32', { name: ', eps 1e-2', parameters: { eps: 1e-2 } }),
    shape(2, 14336, 'bf16', { name: ' (BLOOM 176B)' }),
    shape(2048, 768, 'f32', { bench: true }, true),
    shape(2048, 768, 'bf16', { bench: true }, true),
  ],
  run({ x, residual, weight, bias }, { eps = 1e-5 }) {
    return { ...layerNorm(x!, weight!, bias!, { eps: eps as number, ...(residual ? { residual } : {}) }) };
  },
  backward: {
    outputs: ['y'],
    run({ x, residual, weight }, { mean, rstd, sum }, { y: dy }) {
      const dweight = Tensor.empty(weight!.shape, { dtype: weight!.dtype, device: x!.device });
      const dbias = Tensor.empty(weight!.shape, { dtype: weight!.dtype, device: x!.device });
      const saved = { s: sum ?? x!, mean: mean!, rstd: rstd!, weight: weight! };
      const dx = layerNormBackward(dy!, saved, { dweight, dbias, accumulate: false });
      return { x: dx, ...(residual ? { residual: dx.view(dx.shape) } : {}), weight: dweight, bias: dbias };
    },
  },
  sumLength: (c) => Math.max(...c.inputs.x!.shape),
  bytes: bytesOfRows,
  flops: (c) => c.inputs.x!.shape.reduce((n, d) => n * d, 1) * 8,
};
