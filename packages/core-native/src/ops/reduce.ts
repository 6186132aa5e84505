/** Reductions to one number (in f64, bitwise the same for any number of threads), and the largest of each row. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape } from './check';

/** Checks the f64 number that a reduction writes, or makes it. */
function scalar(op: string, x: Tensor, into: Tensor | undefined): Tensor {
  if (!into) return Tensor.empty([1], { dtype: 'f64', device: x.device });
  expectShape(op, 'into', into, [1]);
  expectDType(op, 'into', into, ['f64'], 'make it with { dtype: "f64" }: f32 loses digits of a long sum');
  expectDevice(op, x, into);
  return into;
}

/**
 * Adds up all elements of `x`.
 *
 * @param into [1] f64, default a new tensor
 * @param accumulate adds to what `into` holds; default false
 * @returns [1] f64; an infinity or NaN in `x` shows in it
 * @throws SHAPE, DTYPE, DEVICE
 */
export function sum(x: Tensor, into?: Tensor, accumulate = false): Tensor {
  expectFloat('sum', 'x', x);
  const out = scalar('sum', x, into);
  native.sum(x.device.stream.id, out.id, x.id, accumulate && into !== undefined);
  return out;
}

/** Adds up the squares of all elements of `x`, otherwise as `sum`. The square of the largest f32 does not overflow. */
export function squareSum(x: Tensor, into?: Tensor, accumulate = false): Tensor {
  expectFloat('square_sum', 'x', x);
  const out = scalar('square_sum', x, into);
  native.square_sum(x.device.stream.id, out.id, x.id, accumulate && into !== undefined);
  return out;
}

/** Finds the first element of `x` that is an infinity or a NaN. @returns [1] f64: its index, or -1 */
export function nonfiniteIndex(x: Tensor, into?: Tensor): Tensor {
  expectFloat('nonfinite_index', 'x', x);
  const out = scalar('nonfinite_index', x, into);
  native.nonfinite_index(x.device.stream.id, out.id, x.id);
  return out;
}

/**
 * Finds the largest element of each row; of equals the first, and a NaN counts as the largest.
 *
 * @param x [..., V] f32, bf16 or f16, V >= 1
 * @returns [...] i32 ([1] for a single row)
 */
export function argmax(x: Tensor): Tensor {
  expectFloat('argmax', 'x', x);
  const out = Tensor.empty(x.shape.length > 1 ? x.shape.slice(0, -1) : [1], { dtype: 'i32', device: x.device });
  native.argmax(x.device.stream.id, out.id, x.id);
  return out;
}
