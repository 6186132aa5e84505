/**
 * The feed-forward half of a pre-norm transformer block, fused, and its gradient:
 *
 *     y = r + dropout(gelu(LN(x) W1 + b1) W2 + b2),   r = x, or LN(x) where the residual is taken after the norm
 *
 * Saved for backward: x, the norm's statistics and the input of the GELU. LN(x) and the GELU are computed again.
 */
import { drop, gelu, geluBackward, layerNorm, linear, type Tensor } from '@ds/core-native';
import { currentTape } from '../autograd/tape';
import { addBranch, blockInputGradient, branchGradient, type DropoutChoice } from './attention-block';
import type { NormParameters } from './layer-norm';
import { type LinearParameters, linearInputGradient, writeLinearGradients } from './linear';

export interface MlpParameters {
  norm: NormParameters;
  /** weight [4C, C] */
  up: LinearParameters;
  /** weight [C, 4C] */
  down: LinearParameters;
  residualAfterNorm: boolean;
}

/** Applies the feed-forward half to `x [R, C]`. */
export function mlpBlock(x: Tensor, p: MlpParameters, call: { hiddenDropout?: DropoutChoice } = {}): Tensor {
  const { y: n, mean, rstd } = layerNorm(x, p.norm.weight.value, p.norm.bias.value, { eps: p.norm.eps });
  const tape = currentTape();
  const { y: a, pre } = linear(n, p.up.weight.value, {
    bias: p.up.bias.value,
    gelu: true,
    savePre: tape !== undefined,
  });
  const y = addBranch(a, p.down, p.residualAfterNorm ? n : x, call.hiddenDropout);
  tape?.record({
    name: 'mlpBlock',
    inputs: [x],
    output: y,
    saved: [x, mean, rstd, pre!],
    backward: (dy) => {
      const d = branchGradient(dy, call.hiddenDropout);
      const activated = gelu(pre!);
      writeLinearGradients(d, activated, p.down);
      drop(activated);
      const da = linearInputGradient(d, p.down);
      const dpre = geluBackward(da, pre!, da);
      const again = layerNorm(x, p.norm.weight.value, p.norm.bias.value, { eps: p.norm.eps });
      writeLinearGradients(dpre, again.y, p.up);
      drop(again.y);
      const dn = linearInputGradient(dpre, p.up);
      drop(da);
      return [blockInputGradient(dn, dy, { x, mean, rstd }, p)];
    },
  });
  return y;
}
