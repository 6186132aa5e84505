import { rmsNorm, rmsNormBackward, Tensor } from '@ds/core-native';
import type { OpCases } from '../common/cases';
import { bytesOfRows, rows } from './cases';

const dtypes = ['f32', 'bf16', 'f16'] as const;

export const rmsNormCases: OpCases = {
  op: 'rms_norm',
  cases: [
    ...dtypes.flatMap((dtype) => [
      rows(1, 1, dtype),
      rows(3, 7, dtype),
      rows(3, 7, dtype, {}, true),
      rows(5, 64, dtype, {}, true),
      rows(2, 129, dtype),
      rows(0, 16, dtype),
      rows(33, 1000, dtype, {}, true),
    ]),
    rows(4, 48, 'f32', { name: ', eps 1e-2', parameters: { eps: 1e-2 } }),
    rows(9, 40, 'bf16', { name: ', f32 weight', inputs: { weight: { shape: [40], dtype: 'f32' } } }, true),
    rows(2, 8192, 'bf16', { name: ' (LLaMA 65B)' }),
    rows(2048, 4096, 'f32', { bench: true }, true),
    rows(2048, 4096, 'bf16', { bench: true }, true),
  ],
  run({ x, residual, weight }, { eps = 1e-6 }) {
    return { ...rmsNorm(x!, weight!, { eps: eps as number, ...(residual ? { residual } : {}) }) };
  },
  backward: {
    outputs: ['y'],
    run({ x, residual, weight }, { rstd, sum }, { y: dy }) {
      const dweight = Tensor.empty(weight!.shape, { dtype: weight!.dtype, device: x!.device });
      const saved = { s: sum ?? x!, rstd: rstd!, weight: weight! };
      const dx = rmsNormBackward(dy!, saved, { dweight, accumulate: false });
      return { x: dx, ...(residual ? { residual: dx.view(dx.shape) } : {}), weight: dweight };
    },
  },
  sumLength: (c) => Math.max(...c.inputs.x!.shape),
  bytes: bytesOfRows,
  flops: (c) => c.inputs.x!.shape.reduce((n, d) => n * d, 1) * 4,
};
