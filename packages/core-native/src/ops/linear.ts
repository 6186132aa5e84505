/** The linear layer, y = x W^T + b, with what follows it fused in, and its gradients. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectShape } from './check';

const floats = ['f32', 'bf16', 'f16', 'f64'] as const;

export interface LinearOptions {
  /** [N], dtype of the weight */
  bias?: Tensor;
  /** Apply GELU (tanh form) to the result. Default false. */
  gelu?: boolean;
  /** Also give what goes into the GELU, for its backward. Default false. */
  savePre?: boolean;
  /** [..., N], dtype of x: added last */
  residual?: Tensor;
}

/**
 * Multiplies `x [..., K]` by `weight [N, K]` transposed; adds bias, applies GELU, adds the residual, as asked for.
 *
 * @returns y [..., N], dtype of x; pre [..., N] with `savePre`
 * @throws SHAPE, DTYPE, DEVICE
 */
export function linear(x: Tensor, weight: Tensor, options: LinearOptions = {}): { y: Tensor; pre?: Tensor } {
  const { bias, gelu = false, savePre = false, residual } = options;
  expectDType('linear', 'x', x, floats);
  expectShape('linear', 'weight', weight, [null, x.dim(-1)], 'weight is [out, in], and in is the last dim of x');
  expectDType('linear', 'weight', weight, [x.dtype, 'f32']);
  const N = weight.dim(0);
  const shape = [...x.shape.slice(0, -1), N];
  if (bias) {
    expectShape('linear', 'bias', bias, [N]);
    expectDType('linear', 'bias', bias, [weight.dtype]);
  }
  if (residual) {
    expectShape('linear', 'residual', residual, shape);
    expectDType('linear', 'residual', residual, [x.dtype]);
  }
  expectDevice('linear', x, weight, bias, residual);
  const y = Tensor.empty(shape, { dtype: x.dtype, device: x.device });
  const pre = savePre ? Tensor.empty(shape, { dtype: x.dtype, device: x.device }) : undefined;
  // biome-ignore format: the order of the contract
  native.linear(x.device.stream.id, y.id, pre?.id ?? 0, x.id, weight.id, bias?.id ?? 0, residual?.id ?? 0, gelu);
  return pre ? { y, pre } : { y };
}

/**
 * Gives dx [..., K] = dy [..., N] W [N, K].
 *
 * @param options.into where it goes; default a new tensor. Added to what is there if `accumulate`.
 */
export function linearBackwardInput(
  dy: Tensor,
  weight: Tensor,
  options: { into?: Tensor; accumulate?: boolean } = {},
): Tensor {
  const op = 'linear_backward_input';
  expectShape(op, 'weight', weight, [dy.dim(-1), null], 'weight is [out, in], and out is the last dim of dy');
  const shape = [...dy.shape.slice(0, -1), weight.dim(1)];
  const dx = options.into ?? Tensor.empty(shape, { dtype: dy.dtype, device: dy.device });
  expectShape(op, 'into', dx, shape);
  expectDType(op, 'into', dx, [dy.dtype]);
  expectDevice(op, dy, weight, dx);
  native.linear_backward_input(dy.device.stream.id, dx.id, dy.id, weight.id, options.accumulate ?? false);
  return dx;
}

/** Writes dweight [N, K] = dy^T x and, if asked for, dbias [N]; added to what is there if `accumulate`. */
export function linearBackwardWeight(
  dy: Tensor,
  x: Tensor,
  grads: { dweight: Tensor; dbias?: Tensor; accumulate: boolean },
): void {
  const op = 'linear_backward_weight';
  const { dweight, dbias, accumulate } = grads;
  expectShape(
    op,
    'dy',
    dy,
    [...x.shape.slice(0, -1), null],
    'x is the input of the layer whose output has the gradient dy',
  );
  expectShape(op, 'dweight', dweight, [dy.dim(-1), x.dim(-1)]);
  expectDType(op, 'dweight', dweight, [x.dtype, 'f32']);
  if (dbias) {
    expectShape(op, 'dbias', dbias, [dy.dim(-1)]);
    expectDType(op, 'dbias', dbias, [dweight.dtype]);
  }
  expectDevice(op, dy, x, dweight, dbias);
  native.linear_backward_weight(dy.device.stream.id, dweight.id, dbias?.id ?? 0, dy.id, x.id, accumulate);
}
