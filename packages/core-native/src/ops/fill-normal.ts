/** First values: normal numbers that any rank can draw for any piece of a parameter. */
import { native } from '../loader';
import type { Tensor } from '../tensor/tensor';
import { expectDType } from './check';

export interface FillNormalOptions {
  /** Default 0. */
  mean?: number;
  std: number;
  /** Whole, below 2^53. The same seed and offset give the same numbers, on every device and rank. */
  seed: number;
  /** Index of the first element in the sequence of that seed; default 0. */
  offset?: number;
}

/**
 * Fills `y` with normal numbers.
 *
 * @throws DTYPE
 * Source: Box & Muller 1958; Salmon et al. 2011 (Philox4x32-10).
 */
export function fillNormal(y: Tensor, options: FillNormalOptions): void {
  expectDType('fill_normal', 'y', y, ['f32', 'bf16', 'f16', 'f64']);
  const { mean = 0, std, seed, offset = 0 } = options;
  native.fill_normal(y.device.stream.id, y.id, mean, std, seed, offset);
}
