/** Layer normalisation and its gradient. */
import { layerNormBackward, layerNorm as layerNormOp, type Tensor } from '@ds/core-native';
import { currentTape } from '../autograd/tape';
import type { Parameter } from '../module/parameter';

export interface NormParameters {
  /** [C] */
  weight: Parameter;
  /** [C] */
  bias: Parameter;
  eps: number;
}

/** Normalises `x [R, C]` over C. Source: Ba et al. 2016. */
export function layerNorm(x: Tensor, norm: NormParameters): Tensor {
  const { y, mean, rstd } = layerNormOp(x, norm.weight.value, norm.bias.value, { eps: norm.eps });
  currentTape()?.record({
    name: 'layerNorm',
    inputs: [x],
    output: y,
    saved: [x, mean, rstd],
    backward: (dy, tape) => [normBackward(dy, { x, mean, rstd }, norm, tape.take(x))],
  });
  return y;
}

/**
 * Gives dx, plus `residualGradient` in the same pass, and writes the gradients of weight and bias.
 * Takes over the reference to `residualGradient`.
 */
export function normBackward(
  dy: Tensor,
  saved: { x: Tensor; mean: Tensor; rstd: Tensor },
  norm: NormParameters,
  residualGradient?: Tensor,
): Tensor {
  const weight = norm.weight.gradTarget();
  const bias = norm.bias.gradTarget();
  const dx = layerNormBackward(
    dy,
    { s: saved.x, mean: saved.mean, rstd: saved.rstd, weight: norm.weight.value },
    { dweight: weight.into, dbias: bias.into, accumulate: weight.accumulate },
    residualGradient ? { dsum: residualGradient } : {},
  );
  residualGradient?.dispose();
  return dx;
}
