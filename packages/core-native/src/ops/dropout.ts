/** Dropout whose mask is a function of a seed and an offset: nothing is stored, backward draws the same numbers again. */
import { DsError } from '../errors';
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape } from './check';

export interface DropoutOptions {
  /** Probability that an element is dropped, 0 <= p < 1. */
  p: number;
  /** Whole number >= 0 that names the stream of random numbers. */
  seed: number;
  /** Counters to skip. A call on n elements uses `dropoutCounters(n)`; calls must not share counters. */
  offset: number;
  /** Added to the result, like `x`. Leave it out in backward: its gradient is dy. */
  residual?: Tensor;
  /** Where the result goes; may be `x` or the residual. Default: a new tensor. */
  into?: Tensor;
}

/** How far one call on `elements` elements moves the offset: four elements share a counter. */
export function dropoutCounters(elements: number): number {
  return Math.ceil(elements / 4);
}

/**
 * Sets each element of `x` to 0 with probability p, multiplies the others by 1 / (1 - p), and adds the residual, if any.
 * The gradient is the same call on dy with the same p, seed and offset.
 *
 * @param x any shape; f32, bf16 or f16
 * @throws SHAPE, DTYPE, DEVICE, CONFIG for a p outside [0, 1) or a seed or offset that is no whole number >= 0
 * Source: Srivastava et al. 2014, sec. 4; Salmon et al. 2011 (Philox4x32-10).
 */
export function dropout(x: Tensor, options: DropoutOptions): Tensor {
  const { p, seed, offset, residual, into } = options;
  if (!(p >= 0 && p < 1))
    throw new DsError({ code: 'CONFIG', op: 'dropout', expected: '0 <= p < 1', actual: String(p) });
  for (const [name, value] of Object.entries({ seed, offset }))
    if (!Number.isSafeInteger(value) || value < 0)
      throw new DsError({
        code: 'CONFIG',
        op: 'dropout',
        expected: `a whole number from 0 to 2^53 - 1 for ${name}`,
        actual: String(value),
      });
  expectFloat('dropout', 'x', x);
  for (const [name, tensor] of [
    ['residual', residual],
    ['into', into],
  ] as const) {
    if (!tensor) continue;
    expectShape('dropout', name, tensor, x.shape);
    expectDType('dropout', name, tensor, [x.dtype]);
  }
  expectDevice('dropout', x, residual, into);
  const y = into ?? Tensor.empty(x.shape, { dtype: x.dtype, device: x.device });
  native.dropout(x.device.stream.id, y.id, x.id, residual?.id ?? 0, p, seed, offset);
  return y;
}
