/** Adam with weight decay: the whole optimizer pass over a range of parameters in one sweep. */
import { DsError } from '../errors';
import { native } from '../loader';
import type { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

export interface AdamWStep {
  /** Master weights, f32, any shape; updated in place */
  p: Tensor;
  /** First moment, like p; updated in place, 0 before the first step */
  m: Tensor;
  /** Second moment, like p; updated in place, 0 before the first step */
  v: Tensor;
  /** Gradient, shape of p; f32, bf16 or f16 */
  grad: Tensor;
  /** Where the new weights also go, rounded: bf16, f16 or f32, shape of p */
  copy?: Tensor;
  /** Number of this step, from 1 on: gives the bias corrections 1 - beta^step */
  step: number;
  lr: number;
  /** Default [0.9, 0.999] */
  betas?: readonly [number, number];
  /** Added outside the root. Default 1e-8 */
  eps?: number;
  /** Default 0 */
  weightDecay?: number;
  /** `decoupled` (AdamW, the default): p shrinks by lr * weightDecay. `l2`: weightDecay * p joins the gradient (Adam). */
  decay?: 'decoupled' | 'l2';
  /** Multiplies the gradient first: 1 / loss scale, times the clipping factor. Default 1 */
  gradScale?: number;
  /** Whether the moments are corrected for their start at 0. Default true */
  biasCorrection?: boolean;
}

/**
 * Makes one AdamW step on a range of parameters. Each element depends on its own state alone, to the bit, so a
 * parameter may be cut in any way.
 *
 * @throws SHAPE, DTYPE, DEVICE, CONFIG for a step below 1
 * Source: Kingma & Ba 2015, alg. 1; Loshchilov & Hutter 2019, alg. 2.
 */
export function adamwStep(options: AdamWStep): void {
  const { p, m, v, grad, copy, step, lr, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0, gradScale = 1 } = options;
  const { decay = 'decoupled', biasCorrection = true } = options;
  if (!Number.isInteger(step) || step < 1)
    throw new DsError({ code: 'CONFIG', op: 'adamw', expected: 'a whole step >= 1', actual: String(step) });
  expectFloat('adamw', 'p', p);
  expectDType('adamw', 'p', p, [statisticsDType(p.dtype)], 'keep an f32 master of 16-bit weights and write `copy`');
  expectFloat('adamw', 'grad', grad);
  for (const [name, tensor] of Object.entries({ m, v, grad, ...(copy ? { copy } : {}) }))
    expectShape('adamw', name, tensor, p.shape);
  expectDType('adamw', 'm', m, [p.dtype]);
  expectDType('adamw', 'v', v, [p.dtype]);
  if (copy) expectFloat('adamw', 'copy', copy);
  expectDevice('adamw', p, m, v, grad, copy);
  const [correction1, correction2] = biasCorrection ? betas.map((beta) => 1 - beta ** step) : [1, 1];
  // biome-ignore format: the order of the contract
  native.adamw(p.device.stream.id, p.id, m.id, v.id, copy?.id ?? 0, grad.id, lr, betas[0], betas[1], eps, weightDecay, correction1!, correction2!, gradScale, decay === 'decoupled');
}
