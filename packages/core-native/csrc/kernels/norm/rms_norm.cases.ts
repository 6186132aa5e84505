import { rmsNorm, rmsNormBackward, Tensor } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

function shape(R: number, C: number, dtype: OpCase['dtype'], extra: Partial<OpCase> = {}, residual = false): OpCase {
  return {
    name: `[${R}, ${C}] ${dtype}${residual ? ' + residual' : ''}${extra.name ?? ''}`,
    dtype,
    inputs: {
      x: { shape: [R, C], value: (random) => random.normal() * 2 + 0.5 },
      ...(residual ? { residual: { shape: [R, C] } } : {}),
      weight: { shape: [C], value: (random) => 1 + 0.3 * random.normal() },
      ...extra.inputs,
    },
    ...(extra.parameters ? { parameters: extra.parameters } : {}),
    ...(extra.bench ? { bench: true } : {}),
  };
}

const dtypes = ['f32', 'bf16', 'f16'] as const;

export const rmsNormCases: OpCases = {
  op: 'rms_norm',
  cases: [
    ...dtypes.flatMap((dtype) => [
      shape(1, 1, dtype),
      shape(3, 7, dtype),
      shape(3, 7, dtype, {}, true),
      shape(5, 64, dtype, {}, true),
      shape(2, 129, dtype),
      shape(0, 16, dtype),
      shape(33, 1000, dtype, {}, true),
    ]),
    shape(4, 48, 'f32', { name: ', eps 1e-2', parameters: { eps: 1e-2 } }),
    shape(9, 40, 'bf16', { name: ', f32 weight', inputs: { weight: { shape: [40], dtype: 'f32' } } }, true),
    shape(2, 8192, 'bf16', { name: ' (LLaMA 65B)' }),
    shape(2048, 4096, 'f32', { bench: true }, true),
    shape(2048, 4096, 'bf16', { bench: true }, true),
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
  bytes: (c) =>
    c.inputs.x!.shape.reduce((n, d) => n * d, 1) * (c.dtype === 'f32' ? 4 : 2) * (c.inputs.residual ? 4 : 2),
  flops: (c) => c.inputs.x!.shape.reduce((n, d) => n * d, 1) * 4,
};
