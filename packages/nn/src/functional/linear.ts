/** The linear layer as the fused blocks use it: parameters in, gradients into the parameters' buffers. */
import { linear, linearBackwardInput, linearBackwardWeight, type Tensor } from '@ds/core-native';
import type { Parameter } from '../module/parameter';

export interface LinearParameters {
  /** [N, K] */
  weight: Parameter;
  /** [N] */
  bias: Parameter;
}

/** `x [R, K]` times weight transposed plus bias, plus `residual [R, N]` if given. */
export function applyLinear(x: Tensor, p: LinearParameters, residual?: Tensor): Tensor {
  return linear(x, p.weight.value, { bias: p.bias.value, ...(residual ? { residual } : {}) }).y;
}

/** Writes the gradients of weight and bias from `dy [R, N]` and the layer's input `x [R, K]`. */
export function writeLinearGradients(dy: Tensor, x: Tensor, p: LinearParameters): void {
  const weight = p.weight.gradTarget();
  const bias = p.bias.gradTarget();
  linearBackwardWeight(dy, x, { dweight: weight.into, dbias: bias.into, accumulate: weight.accumulate });
}

/** Gives the gradient of the layer's input, [R, K]. */
export function linearInputGradient(dy: Tensor, p: LinearParameters): Tensor {
  return linearBackwardInput(dy, p.weight.value);
}
