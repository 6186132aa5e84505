/**
 * The language-model head with its loss, fused: logits exist for a few rows at a time and never as a whole.
 *
 * Logits of a large vocabulary are the largest tensor of a training step. So the gradient of the loss is taken while a
 * block of logits is at hand: rows of dx and the table's gradient are ready when the loss is, and backward has nothing
 * left to do but to hand dx on.
 */
import {
  drop,
  dtypeBytes,
  linear,
  linearBackwardInput,
  linearBackwardWeight,
  softmaxCrossEntropy,
  Tensor,
} from '@ds/core-native';
import { currentTape } from '../autograd/tape';
import type { Parameter } from '../module/parameter';

export interface HeadLossOptions {
  /** The gradients are those of scale * sum(losses). For a mean over rows, 1 / rows. */
  scale: number;
  /** Bytes of logits that may exist at once; default 64 MiB: large enough for the GEMMs to run at full speed. */
  logitsBytes?: number;
}

/**
 * Gives the losses `[R] f32` of predicting `targets [R] i32` (-100: not counted) from `x [R, C]` by the tied table `[V, C]`.
 */
export function headLoss(x: Tensor, table: Parameter, targets: Tensor, options: HeadLossOptions): Tensor {
  const [R, C] = [x.dim(0), x.dim(1)];
  const V = table.shape[0]!;
  const rowsAtOnce = Math.max(1, Math.floor((options.logitsBytes ?? 64 * 2 ** 20) / (V * dtypeBytes[x.dtype])));
  const tape = currentTape();
  const losses = Tensor.empty([R], { dtype: x.dtype === 'f64' ? 'f64' : 'f32', device: x.device });
  const dx = tape ? Tensor.empty([R, C], { dtype: x.dtype, device: x.device }) : undefined;
  for (let from = 0; from < R; from += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, R - from);
    const xs = x.view([rows, C], from * C);
    const logits = linear(xs, table.value).y;
    const { dlogits } = softmaxCrossEntropy(logits, targets.view([rows], from), {
      scale: options.scale,
      losses: losses.view([rows], from),
      gradient: tape ? 'in-place' : 'none',
    });
    if (dx && dlogits) {
      const { into, accumulate } = table.gradTarget();
      linearBackwardInput(dlogits, table.value, { into: dx.view([rows, C], from * C) });
      linearBackwardWeight(dlogits, xs, { dweight: into, accumulate });
      drop(dlogits);
    }
    drop(logits);
  }
  if (tape && dx)
    tape.record({ name: 'headLoss', inputs: [x], output: losses, saved: [dx], backward: () => [dx.view([R, C])] });
  return losses;
}
