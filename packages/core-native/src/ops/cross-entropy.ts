/** Softmax and cross-entropy in one: the losses and their gradient from two sweeps over the logits. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

export interface CrossEntropyOptions {
  /** Factor of the gradient: 1 / (rows that count) for the mean of the losses. Default 1, their sum. */
  scale?: number;
  /** Also gives the gradient, in a tensor of its own or in the place of the logits. Default: losses only. */
  gradient?: 'none' | 'new' | 'in-place';
  /** Where the losses go, [R]; default a new tensor. */
  losses?: Tensor;
  /** Rows with this target have loss 0 and gradient 0. Default -100, as in PyTorch. */
  ignoreIndex?: number;
}

export interface CrossEntropyResult {
  /** [R] f32, unscaled: -log softmax(logits)[target] */
  losses: Tensor;
  /** [R, V], dtype of the logits: scale * (softmax - onehot). In place: a view of the logits. */
  dlogits?: Tensor;
}

/**
 * Gives the cross-entropy of each row of logits with its target, and its gradient if asked for.
 *
 * @param logits [R, V] f32, bf16 or f16
 * @param targets [R] i32, each in [0, V) or `ignoreIndex`
 * @throws SHAPE, DTYPE, DEVICE; another target fails the stream (seen at its next join), naming target and position
 * Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax", alg. 3.
 */
export function softmaxCrossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: CrossEntropyOptions = {},
): CrossEntropyResult {
  const { scale = 1, gradient = 'none', ignoreIndex = -100 } = options;
  expectFloat('softmax_cross_entropy', 'logits', logits);
  expectShape('softmax_cross_entropy', 'logits', logits, [null, null], 'merge leading dims with view()');
  expectShape('softmax_cross_entropy', 'targets', targets, [logits.dim(0)], 'one target for each row of logits');
  expectDType('softmax_cross_entropy', 'targets', targets, ['i32'], 'make targets with { dtype: "i32" }');
  expectDevice('softmax_cross_entropy', logits, targets, options.losses);
  const { device, dtype, shape } = logits;
  const losses = options.losses ?? Tensor.empty([logits.dim(0)], { dtype: statisticsDType(dtype), device });
  expectShape('softmax_cross_entropy', 'losses', losses, [logits.dim(0)]);
  expectDType('softmax_cross_entropy', 'losses', losses, [statisticsDType(dtype)]);
  const dlogits =
    gradient === 'new'
      ? Tensor.empty(shape, { dtype, device })
      : gradient === 'in-place'
        ? logits.view(shape)
        : undefined;
  // biome-ignore format: the order of the contract
  native.softmax_cross_entropy(device.stream.id, losses.id, dlogits?.id ?? 0, logits.id, targets.id, ignoreIndex, scale);
  return dlogits ? { losses, dlogits } : { losses };
}
