/** Copies: from one place to another, and from one dtype to another. */
import { DsError } from '../errors';
import { native } from '../loader';
import type { DType } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectShape } from './check';

const floats: readonly DType[] = ['f32', 'bf16', 'f16', 'f64'];

/**
 * Copies the elements of `from` into `into`, rounded to the dtype of `into` (to nearest, ties to even).
 *
 * @param from f32, bf16, f16, f64, i32 or u8
 * @param into same shape; any float dtype, or that of `from`. A view writes a part of a larger tensor.
 * @returns `into`
 * @throws SHAPE, DEVICE, DTYPE for a cast to integers
 */
export function copy(from: Tensor, into: Tensor): Tensor {
  expectShape('copy', 'into', into, from.shape, 'give one of them the shape of the other with view()');
  expectDevice('copy', from, into);
  if (into.dtype !== from.dtype && !floats.includes(into.dtype))
    throw new DsError({
      code: 'DTYPE',
      op: 'copy',
      expected: `f32, bf16, f16, f64 or ${from.dtype} for into`,
      actual: into.dtype,
      hint: 'numbers become integers in JavaScript only: read, round and write them',
    });
  native.copy(from.device.stream.id, into.id, from.id, 1);
  return into;
}

/** Copies `x` into a new tensor of another dtype. @throws DTYPE for a cast to integers */
export function cast(x: Tensor, dtype: DType): Tensor {
  return copy(x, Tensor.empty(x.shape, { dtype, device: x.device }));
}
