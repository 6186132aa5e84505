/** RMS normalisation over the last dim, with the residual addition in front of it fused in where there is one. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

export interface RmsNormResult {
  /** [..., C], dtype of x */
  y: Tensor;
  /** [R] f32, saved for backward */
  rstd: Tensor;
  /** [..., C]: x + residual, when there is a residual; saved for backward instead of x */
  sum?: Tensor;
}

/**
 * Divides `x [..., C]` (plus `residual [..., C]`, if given) by the root of its mean square over C, times `weight [C]`.
 *
 * @param options.eps added to the mean square; default 1e-6 as in LLaMA
 * @throws SHAPE, DTYPE, DEVICE
 * Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", eq. 4.
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: { eps?: number; residual?: Tensor } = {}): RmsNormResult {
  const { eps = 1e-6, residual } = options;
  expectFloat('rms_norm', 'x', x);
  const C = x.dim(-1);
  expectShape('rms_norm', 'weight', weight, [C], 'weight holds one number for each of the last dim of x');
  expectDType('rms_norm', 'weight', weight, [x.dtype, 'f32']);
  if (residual) {
    expectShape('rms_norm', 'residual', residual, x.shape);
    expectDType('rms_norm', 'residual', residual, [x.dtype]);
  }
  expectDevice('rms_norm', x, weight, residual);
  const device = x.device;
  const y = Tensor.empty(x.shape, { dtype: x.dtype, device });
  const rstd = Tensor.empty([x.numel / C], { dtype: statisticsDType(x.dtype), device });
  const sum = residual && Tensor.empty(x.shape, { dtype: x.dtype, device });
  native.rms_norm(device.stream.id, y.id, rstd.id, sum?.id ?? 0, x.id, residual?.id ?? 0, weight.id, eps);
  return sum ? { y, rstd, sum } : { y, rstd };
}

/**
 * Gives the gradient of `rmsNorm` with respect to its input, and writes that of the weight.
 *
 * @param dy gradient of y, [..., C]
 * @param saved `s` is what was normalised (x, or the sum with the residual), with rstd as `rmsNorm` gave it
 * @param grads where the gradient of weight goes, [C] any float dtype; added to what is there if `accumulate`
 * @param options.dsum gradient that reaches the sum by the residual path, added to the result
 * @returns dx [..., C], which is also the gradient of the residual
 * @throws SHAPE, DTYPE, DEVICE
 */
export function rmsNormBackward(
  dy: Tensor,
  saved: { s: Tensor; rstd: Tensor; weight: Tensor },
  grads: { dweight: Tensor; accumulate: boolean },
  options: { dsum?: Tensor } = {},
): Tensor {
  const { s, rstd, weight } = saved;
  const { dweight, accumulate } = grads;
  const { dsum } = options;
  expectShape('rms_norm_backward', 'dy', dy, s.shape);
  expectDType('rms_norm_backward', 'dy', dy, [s.dtype]);
  expectShape('rms_norm_backward', 'dweight', dweight, [s.dim(-1)]);
  expectFloat('rms_norm_backward', 'dweight', dweight);
  if (dsum) {
    expectShape('rms_norm_backward', 'dsum', dsum, s.shape);
    expectDType('rms_norm_backward', 'dsum', dsum, [s.dtype]);
  }
  expectDevice('rms_norm_backward', s, dy, rstd, weight, dweight, dsum);
  const dx = Tensor.empty(s.shape, { dtype: s.dtype, device: s.device });
  // biome-ignore format: the order of the contract
  native.rms_norm_backward(s.device.stream.id, dx.id, dweight.id, dy.id, dsum?.id ?? 0, s.id, rstd.id, weight.id, accumulate);
  return dx;
}
