/** Elementwise arithmetic: sums, scaling, GELU. Every `into` may be one of the inputs. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape } from './check';

/** Checks `into` against what an op on `like` writes, or makes it. */
function target(op: string, like: Tensor, into: Tensor | undefined): Tensor {
  if (!into) return Tensor.empty(like.shape, { dtype: like.dtype, device: like.device });
  expectShape(op, 'into', into, like.shape);
  expectDType(op, 'into', into, [like.dtype]);
  expectDevice(op, like, into);
  return into;
}

/**
 * Adds `alpha * a + beta * b`, in f32, rounded once to the dtype of `a`.
 *
 * @param a any shape; f32, bf16 or f16
 * @param b shape of `a`; its dtype may differ, so that 16-bit gradients add up in f32
 * @param into where the result goes, like `a`; default a new tensor
 * @throws SHAPE, DTYPE, DEVICE
 */
export function scaleAdd(alpha: number, a: Tensor, beta: number, b: Tensor, into?: Tensor): Tensor {
  expectFloat('scale_add', 'a', a);
  expectFloat('scale_add', 'b', b);
  expectShape('scale_add', 'b', b, a.shape, 'a and b must have one shape: nothing is broadcast');
  expectDevice('scale_add', a, b);
  const out = target('scale_add', a, into);
  native.scale_add(a.device.stream.id, out.id, a.id, b.id, alpha, beta);
  return out;
}

/** Adds `a + b`, as `scaleAdd` does with both factors 1. */
export function add(a: Tensor, b: Tensor, into?: Tensor): Tensor {
  return scaleAdd(1, a, 1, b, into);
}

/** Multiplies `x` by a number; `into` (default a new tensor) is like `x`. @throws SHAPE, DTYPE, DEVICE */
export function scale(x: Tensor, factor: number, into?: Tensor): Tensor {
  expectFloat('scale', 'x', x);
  const out = target('scale', x, into);
  native.copy(x.device.stream.id, out.id, x.id, factor);
  return out;
}

/** Writes `value`, rounded to the dtype, into every element of `tensor`, and returns it. */
export function fill(tensor: Tensor, value: number): Tensor {
  native.fill(tensor.device.stream.id, tensor.id, value);
  return tensor;
}

/**
 * Applies GELU in BLOOM's tanh form: x/2 (1 + tanh(0.79788456 x (1 + 0.044715 x^2))).
 *
 * @param x any shape; f32, bf16 or f16; backward needs it again
 * @throws SHAPE, DTYPE, DEVICE
 * Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units", sec. 2.
 */
export function gelu(x: Tensor, into?: Tensor): Tensor {
  expectFloat('gelu', 'x', x);
  const y = target('gelu', x, into);
  native.gelu(x.device.stream.id, y.id, x.id);
  return y;
}

/**
 * Gives the gradient of `gelu` with respect to its input: dy * gelu'(x).
 *
 * @param dy gradient of the result, like `x`
 * @param x what `gelu` was given
 * @param into default a new tensor; may be `dy`
 */
export function geluBackward(dy: Tensor, x: Tensor, into?: Tensor): Tensor {
  expectFloat('gelu_backward', 'x', x);
  expectShape('gelu_backward', 'dy', dy, x.shape);
  expectDType('gelu_backward', 'dy', dy, [x.dtype]);
  expectDevice('gelu_backward', x, dy);
  const dx = target('gelu_backward', x, into);
  native.gelu_backward(x.device.stream.id, dx.id, dy.id, x.id);
  return dx;
}
