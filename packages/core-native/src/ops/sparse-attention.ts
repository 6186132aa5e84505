/** Attention over some blocks of scores: those of a layout. */
import { DsError } from '../errors';
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import type { AttentionOptions, AttentionResult } from './attention';
import { attentionScalars, expectCommon, expectFused, expectMask, expectSaved } from './attention-arguments';
import type { BlockLayout } from './block-layout';
import { expectDevice, expectDType, expectShape, statisticsDType } from './check';

export interface SparseAttentionOptions extends Omit<AttentionOptions, 'heads'> {
  /**
   * [H, T, T] or [1, T, T] f32 (f64 beside f64): a bias of every pair behind the scaling, of which the blocks of the layout are read; relative
   * positions, or a mask of tokens (-Infinity hides). It gets no gradient. Default: none.
   */
  added?: Tensor;
}

/**
 * Attends over the blocks of a layout, in time and memory that grow with their number.
 *
 * A token that sees no other gets 0. `causal` is by tokens, whatever the blocks hold: a layout may list blocks of the future.
 * @param qkv [B, T, H * 3 * D] as for `attention`, with the heads and the T = N * block tokens of the layout
 * @returns out [B, T, H * D] and lse [B, H, T]
 * @throws SHAPE, DTYPE, DEVICE, CONFIG for a dropout out of range
 * Source: Dao et al. 2022, "FlashAttention", alg. 5; Child et al. 2019, "Sparse Transformers".
 */
export function sparseAttention(
  qkv: Tensor,
  layout: BlockLayout,
  options: SparseAttentionOptions = {},
): AttentionResult {
  const op = 'sparse_attention';
  const { B, T, H, D } = expectSparse(op, qkv, layout, options);
  const out = Tensor.empty([B, T, H * D], { dtype: qkv.dtype, device: qkv.device });
  const lse = Tensor.empty([B, H, T], { dtype: statisticsDType(qkv.dtype), device: qkv.device });
  const { slopes, mask, scale, causal, p, seed, offset } = attentionScalars(op, D, options);
  const lists = listsOf(layout, qkv);
  // biome-ignore format: the order of the contract
  native.sparse_attention(qkv.device.stream.id, out.id, lse.id, qkv.id, ...lists, layout.block, slopes, options.added?.id ?? 0, mask, H, scale, causal, p, seed, offset);
  return { out, lse };
}

/**
 * Gives the gradient of `sparseAttention` with respect to qkv.
 *
 * @param dout gradient of out, [B, T, H * D]
 * @param saved qkv, and out and lse as `sparseAttention` gave them
 * @param options those of the forward call, dropout with the same seed and offset
 * @returns dqkv [B, T, H * 3 * D]
 */
export function sparseAttentionBackward(
  dout: Tensor,
  saved: { qkv: Tensor; out: Tensor; lse: Tensor },
  layout: BlockLayout,
  options: SparseAttentionOptions = {},
): Tensor {
  const op = 'sparse_attention_backward';
  const { qkv, out, lse } = saved;
  const { B, T, H, D } = expectSparse(op, qkv, layout, options);
  expectSaved(op, 'sparseAttention', dout, saved, { B, T, H, D });
  expectDevice(op, qkv, dout, out, lse);
  const dqkv = Tensor.empty(qkv.shape, { dtype: qkv.dtype, device: qkv.device });
  const { slopes, mask, scale, causal, p, seed, offset } = attentionScalars(op, D, options);
  const lists = listsOf(layout, qkv);
  // biome-ignore format: the order of the contract
  native.sparse_attention_backward(qkv.device.stream.id, dqkv.id, dout.id, qkv.id, out.id, lse.id, ...lists, layout.block, slopes, options.added?.id ?? 0, mask, H, scale, causal, p, seed, offset);
  return dqkv;
}

/** The handles of a layout's lists beside a tensor. */
export function listsOf(layout: BlockLayout, { device }: Tensor): [number, number, number, number, number, number] {
  const ids = layout.tensorsOn(device).map(({ id }) => id);
  return ids as [number, number, number, number, number, number];
}

function expectSparse(op: string, qkv: Tensor, layout: BlockLayout, options: SparseAttentionOptions) {
  const { B, T, H, D } = expectFused(op, qkv, layout.heads);
  if (T !== layout.tokens)
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: `${layout.tokens} tokens, the layout's ${layout.blocks} blocks of ${layout.block}`,
      actual: `${T} in qkv [${qkv.shape.join(', ')}]`,
      hint: 'build the layout for this length; a length that is no multiple of the block needs padding',
    });
  expectCommon(op, qkv, H, options);
  if (options.mask) expectMask(op, qkv, options.mask, [B, T]);
  const { added } = options;
  if (added) {
    expectShape(op, 'added', added, [added.shape[0] === 1 ? 1 : H, T, T], 'one bias a pair, for every head or for all');
    expectDType(op, 'added', added, [statisticsDType(qkv.dtype)]);
    expectDevice(op, qkv, added);
  }
  return { B, T, H, D };
}
