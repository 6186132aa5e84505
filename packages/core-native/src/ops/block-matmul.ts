/** The parts of sparse attention, each for itself: products with a block-sparse matrix, and its softmax. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import type { BlockLayout } from './block-layout';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';
import { listsOf } from './sparse-attention';

/**
 * Multiplies two dense matrices on the blocks of a layout: s = op(a) op(b), as scores of queries and keys.
 *
 * @param a [B, H, T, K], or [B, H, K, T] with `transposeA`
 * @param b [B, H, K, T], or [B, H, T, K] with `transposeB`
 * @returns [B, Z, block, block], Z = layout.nonzeroBlocks: head by head, each by rows
 * @throws SHAPE, DTYPE, DEVICE
 */
export function blockSdd(
  a: Tensor,
  b: Tensor,
  layout: BlockLayout,
  { transposeA = false, transposeB = false }: { transposeA?: boolean; transposeB?: boolean } = {},
): Tensor {
  const op = 'block_sdd';
  const [B, K] = expectDense(op, 'a', a, layout, !transposeA);
  expectShape(op, 'b', b, matrixShape(B, K, layout, transposeB), 'a and b share B, H, T and K');
  expectOperand(op, 'b', a, b);
  const s = Tensor.empty(sparseShape(B, layout), { dtype: a.dtype, device: a.device });
  native.block_sdd(a.device.stream.id, s.id, a.id, b.id, ...listsOf(layout, a), layout.block, transposeA, transposeB);
  return s;
}

/**
 * Multiplies a block-sparse matrix with a dense one: y = op(s) op(b), as probabilities with values.
 *
 * @param s [B, Z, block, block] as `blockSdd` gives it
 * @param b [B, H, T, K], or [B, H, K, T] with `transposeB`
 * @returns [B, H, T, K]
 * @throws SHAPE, DTYPE, DEVICE
 */
export function blockDsd(
  s: Tensor,
  b: Tensor,
  layout: BlockLayout,
  { transposeS = false, transposeB = false }: { transposeS?: boolean; transposeB?: boolean } = {},
): Tensor {
  const op = 'block_dsd';
  const [B, K] = expectDense(op, 'b', b, layout, !transposeB);
  expectShape(op, 's', s, sparseShape(B, layout), 'pass what blockSdd() gave for this layout');
  expectOperand(op, 's', b, s);
  const y = Tensor.empty(matrixShape(B, K, layout, true), { dtype: b.dtype, device: b.device });
  native.block_dsd(b.device.stream.id, y.id, s.id, b.id, ...listsOf(layout, b), layout.block, transposeS, transposeB);
  return y;
}

/**
 * Multiplies a dense matrix with a block-sparse one: y = op(a) op(s).
 *
 * @param a [B, H, K, T], or [B, H, T, K] with `transposeA`
 * @param s [B, Z, block, block] as `blockSdd` gives it
 * @returns [B, H, K, T]
 * @throws SHAPE, DTYPE, DEVICE
 */
export function blockDds(
  a: Tensor,
  s: Tensor,
  layout: BlockLayout,
  { transposeA = false, transposeS = false }: { transposeA?: boolean; transposeS?: boolean } = {},
): Tensor {
  const op = 'block_dds';
  const [B, K] = expectDense(op, 'a', a, layout, transposeA);
  expectShape(op, 's', s, sparseShape(B, layout), 'pass what blockSdd() gave for this layout');
  expectOperand(op, 's', a, s);
  const y = Tensor.empty(matrixShape(B, K, layout, false), { dtype: a.dtype, device: a.device });
  native.block_dds(a.device.stream.id, y.id, a.id, s.id, ...listsOf(layout, a), layout.block, transposeA, transposeS);
  return y;
}

export interface BlockSoftmaxOptions {
  /** Default 1. */
  scale?: number;
  /** [H, T, T] or [1, T, T] f32: added behind the scaling (DeepSpeed's rpe, and its masks in mode "add"). */
  added?: Tensor;
  /** [B, T] u8: 0 where a key is seen by nobody (DeepSpeed's key padding mask in mode "mul"). Default: all are seen. */
  mask?: Tensor;
  /** Whether a query sees only keys up to its own place. Default false. */
  causal?: boolean;
}

/**
 * Gives the softmax of every row over the blocks of the layout; a row without a visible key becomes 0.
 *
 * @param s [B, Z, block, block] as `blockSdd` gives it
 * @throws SHAPE, DTYPE, DEVICE
 */
export function blockSoftmax(s: Tensor, layout: BlockLayout, options: BlockSoftmaxOptions = {}): Tensor {
  const op = 'block_softmax';
  const { scale = 1, added, mask, causal = false } = options;
  const T = layout.tokens;
  expectFloat(op, 's', s);
  expectShape(op, 's', s, [null, ...sparseShape(0, layout).slice(1)], 'pass what blockSdd() gave for this layout');
  if (added) {
    expectShape(op, 'added', added, [added.shape[0] === 1 ? 1 : layout.heads, T, T]);
    expectDType(op, 'added', added, [statisticsDType(s.dtype)]);
  }
  if (mask) {
    expectShape(op, 'mask', mask, [s.shape[0]!, T]);
    expectDType(op, 'mask', mask, ['u8']);
  }
  expectDevice(op, s, added, mask);
  const p = Tensor.empty(s.shape, { dtype: s.dtype, device: s.device });
  // biome-ignore format: the order of the contract
  native.block_softmax(s.device.stream.id, p.id, s.id, ...listsOf(layout, s), layout.block, added?.id ?? 0, mask?.id ?? 0, scale, causal);
  return p;
}

/** Gives the gradient of `blockSoftmax` with respect to s from that of p, and p as it came out. @throws SHAPE, DTYPE */
export function blockSoftmaxBackward(dp: Tensor, p: Tensor, layout: BlockLayout, scale = 1): Tensor {
  const op = 'block_softmax_backward';
  expectFloat(op, 'p', p);
  expectShape(op, 'p', p, [null, ...sparseShape(0, layout).slice(1)], 'pass what blockSoftmax() gave');
  expectShape(op, 'dp', dp, p.shape);
  expectOperand(op, 'dp', p, dp);
  const ds = Tensor.empty(p.shape, { dtype: p.dtype, device: p.device });
  const stream = p.device.stream.id;
  native.block_softmax_backward(stream, ds.id, dp.id, p.id, ...listsOf(layout, p), layout.block, scale);
  return ds;
}

/** A dense matrix of every head, T by rows or by columns. */
function matrixShape(B: number, K: number, { heads, tokens }: BlockLayout, byRows: boolean): number[] {
  return byRows ? [B, heads, tokens, K] : [B, heads, K, tokens];
}

function sparseShape(B: number, { nonzeroBlocks, block }: BlockLayout): number[] {
  return [B, nonzeroBlocks, block, block];
}

function expectDense(op: string, name: string, t: Tensor, layout: BlockLayout, byRows: boolean): [number, number] {
  expectFloat(op, name, t);
  const { heads, tokens } = layout;
  expectShape(
    op,
    name,
    t,
    byRows ? [null, heads, tokens, null] : [null, heads, null, tokens],
    'the heads and tokens of the layout',
  );
  return [t.shape[0]!, t.shape[byRows ? 3 : 2]!];
}

function expectOperand(op: string, name: string, first: Tensor, other: Tensor): void {
  expectDType(op, name, other, [first.dtype]);
  expectDevice(op, first, other);
}
