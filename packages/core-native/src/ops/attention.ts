/** Attention over the fused queries, keys and values of BLOOM, with ALiBi, padding masks, dropout and a cache. */
import { DsError } from '../errors';
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { attentionScalars, expectCommon, expectFused, expectMask, expectSaved } from './attention-arguments';
import { expectDevice, expectDType, expectShape, statisticsDType } from './check';

export interface AttentionOptions {
  /** H; the last dim of qkv is H * 3 * D, per head its query, key and value. */
  heads: number;
  /** ALiBi: [H] f32 (f64 beside f64), the bias of a key per token of distance; see `alibiSlopes`. Default: no bias. */
  slopes?: Tensor;
  /** Whether a token sees only itself and those before it. Default true. */
  causal?: boolean;
  /** [B, T] u8: 0 for padding, anywhere; it is seen by nobody and takes up no position. Default: every token is real. */
  mask?: Tensor;
  /** What the products of queries and keys are multiplied by. Default 1 / sqrt(D), as in BLOOM. */
  scale?: number;
  /** Drops probabilities; numbered as in `dropout`, a call uses `dropoutCounters(B * H * T * T)`. Default: none. */
  dropout?: { p: number; seed: number; offset: number };
}

export interface AttentionResult {
  /** [B, T, H * D], dtype of qkv */
  out: Tensor;
  /** [B, H, T] f32: log of the sum of exp(scores), saved for backward; -inf for a token that sees none */
  lse: Tensor;
}

/**
 * Attends: out = softmax(scale * q k^T + slope * (position of key - position of query)) v per head, in O(T) memory.
 *
 * A token that sees no real token gets 0.
 * @param qkv [B, T, H * 3 * D] f32, bf16 or f16: per head the query, key and value of BLOOM's fused projection
 * @throws SHAPE, DTYPE, DEVICE, CONFIG for a dropout out of range
 * Source: Dao et al. 2022, "FlashAttention", alg. 1; Press et al. 2022, "Train Short, Test Long", sec. 3.
 */
export function attention(qkv: Tensor, options: AttentionOptions): AttentionResult {
  const op = 'attention';
  const { B, T, H, D } = expectFused(op, qkv, options.heads);
  expectCommon(op, qkv, H, options);
  if (options.mask) expectMask(op, qkv, options.mask, [B, T]);
  const out = Tensor.empty([B, T, H * D], { dtype: qkv.dtype, device: qkv.device });
  const lse = Tensor.empty([B, H, T], { dtype: statisticsDType(qkv.dtype), device: qkv.device });
  const { slopes, mask, scale, causal, p, seed, offset } = attentionScalars(op, D, options);
  // biome-ignore format: the order of the contract
  native.attention(qkv.device.stream.id, out.id, lse.id, qkv.id, slopes, mask, H, scale, causal, p, seed, offset);
  return { out, lse };
}

/**
 * Gives the gradient of `attention` with respect to qkv.
 *
 * @param dout gradient of out, [B, T, H * D]
 * @param saved qkv, and out and lse as `attention` gave them
 * @param options those of the forward call, dropout with the same seed and offset
 * @returns dqkv [B, T, H * 3 * D]
 */
export function attentionBackward(
  dout: Tensor,
  saved: { qkv: Tensor; out: Tensor; lse: Tensor },
  options: AttentionOptions,
): Tensor {
  const op = 'attention_backward';
  const { qkv, out, lse } = saved;
  const { B, T, H, D } = expectFused(op, qkv, options.heads);
  expectSaved(op, 'attention', dout, saved, { B, T, H, D });
  expectCommon(op, qkv, H, options);
  if (options.mask) expectMask(op, qkv, options.mask, [B, T]);
  expectDevice(op, qkv, dout, out, lse);
  const dqkv = Tensor.empty(qkv.shape, { dtype: qkv.dtype, device: qkv.device });
  const { slopes, mask, scale, causal, p, seed, offset } = attentionScalars(op, D, options);
  // biome-ignore format: the order of the contract
  native.attention_backward(qkv.device.stream.id, dqkv.id, dout.id, qkv.id, out.id, lse.id, slopes, mask, H, scale, causal, p, seed, offset);
  return dqkv;
}

export interface AttentionCachedOptions extends Pick<AttentionOptions, 'heads' | 'slopes' | 'scale'> {
  /** Tokens that the cache holds already, the same for every sequence of the batch, padding included. */
  past: number;
  /** [B, M] u8 with M >= past + T: 0 for padding among all tokens so far. Default: every token is real. */
  mask?: Tensor;
}

/**
 * Attends causally from new tokens to themselves and to those in a cache, and appends their keys and values to it.
 *
 * A token's result is the same to the bit in one call or in several, alone or in a batch, and as `attention` gives it.
 * @param qkv [B, T, H * 3 * D] of the new tokens
 * @param keys [B, H, S, D], dtype of qkv, written at places past .. past + T - 1. Inside a head its order is the
 *   kernel's own (groups of 16 tokens, transposed), so only whole sequences may be copied
 * @param values [B, H, S, D], likewise, row major
 * @returns out [B, T, H * D]
 * @throws SHAPE, DTYPE, DEVICE
 */
export function attentionCached(qkv: Tensor, keys: Tensor, values: Tensor, options: AttentionCachedOptions): Tensor {
  const op = 'attention_cached';
  const { B, T, H, D } = expectFused(op, qkv, options.heads);
  const { past } = options;
  expectShape(op, 'keys', keys, [B, H, null, D]);
  expectShape(op, 'values', values, keys.shape);
  expectDType(op, 'keys', keys, [qkv.dtype]);
  expectDType(op, 'values', values, [qkv.dtype]);
  const capacity = keys.dim(2);
  if (!Number.isInteger(past) || past < 0 || past + T > capacity)
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: `0 <= past and past + ${T} new tokens <= ${capacity}, the capacity of the cache`,
      actual: `past ${past}`,
      hint: 'make the cache larger',
    });
  expectCommon(op, qkv, H, options);
  if (options.mask) {
    expectMask(op, qkv, options.mask, [B, Math.max(options.mask.shape[1] ?? 0, past + T)]);
  }
  expectDevice(op, qkv, keys, values);
  const out = Tensor.empty([B, T, H * D], { dtype: qkv.dtype, device: qkv.device });
  // biome-ignore format: the order of the contract
  native.attention_cached(qkv.device.stream.id, out.id, keys.id, values.id, qkv.id, options.slopes?.id ?? 0, options.mask?.id ?? 0, H, past, options.scale ?? 1 / Math.sqrt(D));
  return out;
}

/**
 * Gives the ALiBi slopes of BLOOM: with p the largest power of two <= heads, 2^(-8(i+1)/p) for i < p, then every second
 * slope of 2p heads. Exact once rounded to f32.
 *
 * Source: Press et al. 2022, sec. 3 and its authors' code for head counts that are no power of two.
 */
export function alibiSlopes(heads: number): number[] {
  if (!Number.isInteger(heads) || heads < 1)
    throw new DsError({ code: 'CONFIG', op: 'alibiSlopes', expected: 'at least 1 head', actual: String(heads) });
  const p = 2 ** Math.floor(Math.log2(heads));
  return Array.from(
    { length: heads },
    (_, i) => 2 ** (i < p ? (-8 * (i + 1)) / p : (-8 * (2 * (i - p) + 1)) / (2 * p)),
  );
}
