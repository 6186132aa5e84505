/**
 * LAMB: Adam's direction times a trust ratio, which needs the norms of a whole parameter. A parameter that is cut over
 * ranks takes `lambMoments` on each piece, a sum of `squares` over the pieces, then `lambStep` on each piece.
 */
import { DsError } from '../errors';
import { native } from '../loader';
import type { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

/** What both ops of a step take. */
export interface LambPiece {
  /** Master weights of a piece of one parameter, f32, any shape */
  p: Tensor;
  /** First moment, like p; 0 before the first step */
  m: Tensor;
  /** Second moment, like p; 0 before the first step */
  v: Tensor;
  /** [2] f64: sums of the squares of the weights, and of the direction */
  squares: Tensor;
  /** Default [0.9, 0.999] */
  betas?: readonly [number, number];
  /** Added outside the root. Default 1e-8 */
  eps?: number;
  /** weightDecay * p joins the direction. Default 0 */
  weightDecay?: number;
}

export interface LambMoments extends LambPiece {
  /** Gradient, shape of p; f32, bf16 or f16 */
  grad: Tensor;
  /** Multiplies the gradient first: 1 / loss scale, times the clipping factor. Default 1 */
  gradScale?: number;
  /** Adds to the squares that are there: those of the parameter's earlier pieces. Default false */
  accumulate?: boolean;
}

export interface LambStep extends LambPiece {
  /** Where the new weights also go, rounded: bf16, f16 or f32, shape of p */
  copy?: Tensor;
  /** Number of this step, from 1 on: gives the bias corrections 1 - beta^step */
  step: number;
  lr: number;
  /** Bounds of the trust ratio. Defaults 0.01 and 10, as in DeepSpeed */
  minCoefficient?: number;
  maxCoefficient?: number;
  /** Whether the rate is corrected for moments that start at 0. Default true */
  biasCorrection?: boolean;
}

/**
 * Updates the moments of a piece of one parameter, and gives the squared norms of its weights and of the direction that
 * it wants to go. The weights stay.
 *
 * @throws SHAPE, DTYPE, DEVICE
 * Source: You et al. 2020, "Large Batch Optimization for Deep Learning", alg. 2.
 */
export function lambMoments(options: LambMoments): void {
  const { p, m, v, squares, grad, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0, gradScale = 1 } = options;
  expectPiece('lamb_moments', options);
  expectShape('lamb_moments', 'grad', grad, p.shape);
  expectFloat('lamb_moments', 'grad', grad);
  expectDevice('lamb_moments', p, grad);
  // biome-ignore format: the order of the contract
  native.lamb_moments(p.device.stream.id, m.id, v.id, squares.id, p.id, grad.id, betas[0], betas[1], eps, weightDecay, gradScale, options.accumulate ?? false);
}

/**
 * Moves the weights of a piece against its direction, scaled by the trust ratio of the whole parameter.
 *
 * @param options.squares those of the whole parameter; moments, eps and weightDecay as in `lambMoments`
 * @throws SHAPE, DTYPE, DEVICE, CONFIG for a step below 1 or bounds that cross
 */
export function lambStep(options: LambStep): void {
  const { p, m, v, squares, copy, step, lr, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0 } = options;
  const { minCoefficient = 0.01, maxCoefficient = 10, biasCorrection = true } = options;
  const refuse = (expected: string, actual: unknown) => {
    throw new DsError({ code: 'CONFIG', op: 'lamb_step', expected, actual: String(actual) });
  };
  if (!Number.isInteger(step) || step < 1) refuse('a whole step >= 1', step);
  if (!(minCoefficient <= maxCoefficient))
    refuse('minCoefficient <= maxCoefficient', `${minCoefficient} and ${maxCoefficient}`);
  expectPiece('lamb_step', options);
  if (copy) {
    expectShape('lamb_step', 'copy', copy, p.shape);
    expectFloat('lamb_step', 'copy', copy);
  }
  expectDevice('lamb_step', p, copy);
  const rate = biasCorrection ? (lr * Math.sqrt(1 - betas[1] ** step)) / (1 - betas[0] ** step) : lr;
  // biome-ignore format: the order of the contract
  native.lamb_step(p.device.stream.id, p.id, copy?.id ?? 0, m.id, v.id, squares.id, rate, eps, weightDecay, minCoefficient, maxCoefficient);
}

function expectPiece(op: string, { p, m, v, squares }: LambPiece): void {
  expectFloat(op, 'p', p);
  expectDType(op, 'p', p, [statisticsDType(p.dtype)], 'keep an f32 master of 16-bit weights and write `copy`');
  for (const [name, tensor] of Object.entries({ m, v })) {
    expectShape(op, name, tensor, p.shape);
    expectDType(op, name, tensor, [p.dtype]);
  }
  expectShape(op, 'squares', squares, [2]);
  expectDType(op, 'squares', squares, ['f64'], 'make it with { dtype: "f64" }: f32 loses digits of a long sum');
  expectDevice(op, p, m, v, squares);
}
