/**
 * The attention half of a pre-norm transformer block, fused, and its gradient:
 *
 *     y = r + dropout(attention(LN(x) Wqkv + b) Wo + b),   r = x, or LN(x) where the residual is taken after the norm
 *
 * Saved for backward: x, the norm's statistics, qkv, the attention's output and its log-sum-exp. The normalised x is
 * computed again in backward: one cheap pass instead of [R, C] held over the whole step.
 */
import {
  type AttentionOptions,
  add,
  attention,
  attentionBackward,
  type BlockLayout,
  drop,
  dropout,
  layerNorm,
  sparseAttention,
  sparseAttentionBackward,
  type Tensor,
} from '@ds/core-native';
import { currentTape } from '../autograd/tape';
import type { NormParameters } from './layer-norm';
import { normBackward } from './layer-norm';
import { applyLinear, type LinearParameters, linearInputGradient, writeLinearGradients } from './linear';

export interface AttentionParameters {
  norm: NormParameters;
  /** weight [3C, C]: per head its q, k and v rows, as BLOOM stores them */
  queryKeyValue: LinearParameters;
  dense: LinearParameters;
  heads: number;
  residualAfterNorm: boolean;
}

/** One random choice that can be made again in backward. */
export interface DropoutChoice {
  p: number;
  seed: number;
  offset: number;
}

export interface AttentionCall {
  /** Sequences in the batch; x has B * T rows. */
  batch: number;
  /** ALiBi, [heads] f32 */
  slopes: Tensor;
  /** [B, T] u8, 1 where a token is real; absent: all are. */
  mask?: Tensor;
  /** The blocks of keys that each block of queries sees; absent: all. */
  layout?: BlockLayout;
  attentionDropout?: DropoutChoice;
  hiddenDropout?: DropoutChoice;
}

/** Applies the attention half to `x [B*T, C]`. */
export function attentionBlock(x: Tensor, p: AttentionParameters, call: AttentionCall): Tensor {
  const C = x.dim(-1);
  const { y: n, mean, rstd } = layerNorm(x, p.norm.weight.value, p.norm.bias.value, { eps: p.norm.eps });
  const qkv = applyLinear(n, p.queryKeyValue).view([call.batch, x.dim(0) / call.batch, 3 * C]);
  const options = attentionOptions(p, call);
  const { layout } = call;
  const { out, lse } = layout ? sparseAttention(qkv, layout, options) : attention(qkv, options);
  const y = addBranch(out.view([x.dim(0), C]), p.dense, p.residualAfterNorm ? n : x, call.hiddenDropout);
  currentTape()?.record({
    name: 'attentionBlock',
    inputs: [x],
    output: y,
    saved: [x, mean, rstd, qkv, out, lse, ...(call.mask ? [call.mask] : [])],
    backward: (dy) => {
      const d = branchGradient(dy, call.hiddenDropout);
      writeLinearGradients(d, out.view([x.dim(0), C]), p.dense);
      const dcontext = linearInputGradient(d, p.dense);
      const attended = { qkv, out, lse };
      const dout = dcontext.view(out.shape);
      const dqkv = (
        layout ? sparseAttentionBackward(dout, attended, layout, options) : attentionBackward(dout, attended, options)
      ).view([x.dim(0), 3 * C]);
      drop(dcontext);
      const again = layerNorm(x, p.norm.weight.value, p.norm.bias.value, { eps: p.norm.eps });
      writeLinearGradients(dqkv, again.y, p.queryKeyValue);
      drop(again.y);
      const dn = linearInputGradient(dqkv, p.queryKeyValue);
      return [blockInputGradient(dn, dy, { x, mean, rstd }, p)];
    },
  });
  return y;
}

function attentionOptions(p: AttentionParameters, call: AttentionCall): AttentionOptions {
  return {
    heads: p.heads,
    slopes: call.slopes,
    ...(call.mask ? { mask: call.mask } : {}),
    ...(call.attentionDropout ? { dropout: call.attentionDropout } : {}),
  };
}

/** residual + dropout(branch W + b); without dropout in the GEMM's own epilogue. */
export function addBranch(
  branch: Tensor,
  p: LinearParameters,
  residual: Tensor,
  choice: DropoutChoice | undefined,
): Tensor {
  if (!choice) return applyLinear(branch, p, residual);
  return dropout(applyLinear(branch, p), { ...choice, residual });
}

/** The gradient of the branch behind the dropout. */
export function branchGradient(dy: Tensor, choice: DropoutChoice | undefined): Tensor {
  return choice ? dropout(dy, choice) : dy;
}

/** Brings the gradient of LN(x) and that of the residual together at x. */
export function blockInputGradient(
  dn: Tensor,
  dy: Tensor,
  saved: { x: Tensor; mean: Tensor; rstd: Tensor },
  p: { norm: NormParameters; residualAfterNorm: boolean },
): Tensor {
  if (p.residualAfterNorm) return normBackward(add(dn, dy), saved, p.norm);
  return normBackward(dn, saved, p.norm, dy.retain());
}
