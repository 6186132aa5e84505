/** Lion: the whole optimizer pass over a range of parameters in one sweep. */
import { native } from '../loader';
import type { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

export interface LionStep {
  /** Master weights, f32, any shape; updated in place */
  p: Tensor;
  /** Moment, like p; updated in place, 0 before the first step */
  m: Tensor;
  /** Gradient, shape of p; f32, bf16 or f16 */
  grad: Tensor;
  /** Where the new weights also go, rounded: bf16, f16 or f32, shape of p */
  copy?: Tensor;
  /** Every weight moves by as much, but for those whose direction is exactly 0 */
  lr: number;
  /** Default [0.9, 0.99] */
  betas?: readonly [number, number];
  /** p shrinks by lr * weightDecay. Default 0 */
  weightDecay?: number;
  /** Multiplies the gradient first: 1 / loss scale, times the clipping factor. Default 1 */
  gradScale?: number;
}

/**
 * Makes one Lion step on a range of parameters. Each element depends on its own state alone, to the bit, so a parameter
 * may be cut in any way.
 *
 * @throws SHAPE, DTYPE, DEVICE
 * Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", alg. 2.
 */
export function lionStep(options: LionStep): void {
  const { p, m, grad, copy, lr, betas = [0.9, 0.99], weightDecay = 0, gradScale = 1 } = options;
  expectFloat('lion', 'p', p);
  expectDType('lion', 'p', p, [statisticsDType(p.dtype)], 'keep an f32 master of 16-bit weights and write `copy`');
  expectFloat('lion', 'grad', grad);
  for (const [name, tensor] of Object.entries({ m, grad, ...(copy ? { copy } : {}) }))
    expectShape('lion', name, tensor, p.shape);
  expectDType('lion', 'm', m, [p.dtype]);
  if (copy) expectFloat('lion', 'copy', copy);
  expectDevice('lion', p, m, grad, copy);
  // biome-ignore format: the order of the contract
  native.lion(p.device.stream.id, p.id, m.id, copy?.id ?? 0, grad.id, lr, betas[0], betas[1], weightDecay, gradScale);
}
