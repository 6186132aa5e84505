/** Layer normalisation over the last dim, with the residual addition in front of it fused in where there is one. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectShape, statisticsDType } from './check';

const floats = ['f32', 'bf16', 'f16', 'f64'] as const;

export interface LayerNormResult {
  /** [..., C], dtype of x */
  y: Tensor;
  /** [R] f32, saved for backward */
  mean: Tensor;
  /** [R] f32, saved for backward */
  rstd: Tensor;
  /** [..., C]: x + residual, when there is a residual; saved for backward instead of x */
  sum?: Tensor;
}

/**
 * Normalises `x [..., C]` (plus `residual [..., C]`, if given) to mean 0 and variance 1 over C, times `weight [C]` plus `bias [C]`.
 *
 * @param options.eps added to the variance; default 1e-5 as in BLOOM and PyTorch
 * @throws SHAPE, DTYPE, DEVICE
 * Source: Ba et al. 2016, "Layer Normalization", sec. 3, eqs. 3-4.
 */
export function layerNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  options: { eps?: number; residual?: Tensor } = {},
): LayerNormResult {
  const { eps = 1e-5, residual } = options;
  expectDType('layer_norm', 'x', x, floats);
  const C = x.dim(-1);
  expectShape('layer_norm', 'weight', weight, [C], 'weight and bias hold one number for each of the last dim of x');
  expectShape('layer_norm', 'bias', bias, [C]);
  expectDType('layer_norm', 'weight', weight, [x.dtype, 'f32']);
  expectDType('layer_norm', 'bias', bias, [weight.dtype]);
  if (residual) {
    expectShape('layer_norm', 'residual', residual, x.shape);
    expectDType('layer_norm', 'residual', residual, [x.dtype]);
  }
  expectDevice('layer_norm', x, weight, bias, residual);
  const device = x.device;
  const rows = x.numel / C;
  const y = Tensor.empty(x.shape, { dtype: x.dtype, device });
  const mean = Tensor.empty([rows], { dtype: statisticsDType(x.dtype), device });
  const rstd = Tensor.empty([rows], { dtype: statisticsDType(x.dtype), device });
  const sum = residual && Tensor.empty(x.shape, { dtype: x.dtype, device });
  // biome-ignore format: the order of the contract
  native.layer_norm(device.stream.id, y.id, mean.id, rstd.id, sum?.id ?? 0, x.id, residual?.id ?? 0, weight.id, bias.id, eps);
  return sum ? { y, mean, rstd, sum } : { y, mean, rstd };
}

/**
 * Gives the gradient of `layerNorm` with respect to its input, and writes those of weight and bias.
 *
 * @param dy gradient of y, [..., C]
 * @param saved `s` is what was normalised (x, or the sum with the residual), with mean and rstd as `layerNorm` gave them
 * @param grads where the gradients of weight and bias go, [C] any float dtype; added to what is there if `accumulate`
 * @param options.dsum gradient that reaches the sum by the residual path, added to the result
 * @returns dx [..., C], which is also the gradient of the residual
 */
export function layerNormBackward(
  dy: Tensor,
  saved: { s: Tensor; mean: Tensor; rstd: Tensor; weight: Tensor },
  grads: { dweight: Tensor; dbias: Tensor; accumulate: boolean },
  options: { dsum?: Tensor } = {},
): Tensor {
  const { s, mean, rstd, weight } = saved;
  expectShape('layer_norm_backward', 'dy', dy, s.shape);
  expectDType('layer_norm_backward', 'dy', dy, [s.dtype]);
  expectShape('layer_norm_backward', 'dweight', grads.dweight, [s.dim(-1)]);
  expectShape('layer_norm_backward', 'dbias', grads.dbias, [s.dim(-1)]);
  expectDevice('layer_norm_backward', s, dy, mean, rstd, weight, grads.dweight, grads.dbias, options.dsum);
  const dx = Tensor.empty(s.shape, { dtype: s.dtype, device: s.device });
  // biome-ignore format: the order of the contract
  native.layer_norm_backward(s.device.stream.id, dx.id, grads.dweight.id, grads.dbias.id, dy.id, options.dsum?.id ?? 0, s.id, mean.id, rstd.id, weight.id, grads.accumulate);
  return dx;
}
