/** Attention over keys and values in pages, for batches of rows of many sequences without padding. */
import type { Device, DeviceName } from '../device';
import { DsError } from '../errors';
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

/** Tokens of a page. */
export type PageTokens = 8 | 16 | 32;

/** How an element of a page is stored; `i8`: a signed byte times an f32 scale of its token and head. */
export type PageFormat = 'f32' | 'bf16' | 'f16' | 'i8';

/** Keys and values of one layer: P pages of G key-value heads. See csrc/kernels/attention/paged_pages.h. */
export interface PagedKeyValues {
  /** [P, G, D, page] f32, bf16 or f16, or u8 with scales: transposed inside a page */
  keys: Tensor;
  /** [P, G, page, D], dtype of the keys */
  values: Tensor;
  /** [P, G, page] f32, beside u8 only: what a signed byte is multiplied by */
  keyScales?: Tensor;
  valueScales?: Tensor;
}

/** Which tokens the R rows of a batch are, and where the sequences' pages lie. The kernels check the numbers. */
export interface PagedRows {
  /** [S + 1] i32: sequence s owns rows starts[s] .. starts[s + 1] - 1 */
  starts: Tensor;
  /** [S] i32: the position of a sequence's first row */
  past: Tensor;
  /** [S, M] i32: page ids of a sequence's tokens 0 .. page - 1, page .. 2 page - 1, ...; entries not needed may hold anything */
  pages: Tensor;
  /**
   * The most rows that a sequence has: tells a GPU what it need not start. Default: R, which is always right.
   */
  longest?: number;
}

export interface PagedWriteOptions {
  /** H, a multiple of G */
  heads: number;
  /** G; default H */
  keyValueHeads?: number;
  /**
   * `table` [positions, 2 * half] f32: cosines, then sines, of each position, for the first 2 * half elements of a head.
   * `interleaved`: pairs are neighbours (GPT-J) instead of half apart (Llama, GPT-NeoX). Default: no rotation.
   */
  rotary?: { table: Tensor; interleaved?: boolean };
  /** RMS norm of the queries, before the rotation: [D] over each head, [H * D] over all of a row's. Default: none. */
  queryNorm?: Tensor;
  /** Likewise of the keys: [D] or [G * D] */
  keyNorm?: Tensor;
  /** Added to the mean square. Default 1e-6, as in Qwen 3 and OLMoE's family. */
  eps?: number;
}

export interface PagedAttentionOptions {
  /** H, a multiple of G */
  heads: number;
  /** G; default H */
  keyValueHeads?: number;
  /** What products of queries and keys are multiplied by. Default 1 / sqrt(D) */
  scale?: number;
  /** ALiBi: [H] f32, the bias of a key per token of distance. Default: no bias */
  slopes?: Tensor;
  /** A row sees itself and window - 1 tokens before it. Default: all */
  window?: number;
}

/** Makes room for `pages` pages; what they hold is garbage until it is written. */
export function emptyPages(options: {
  pages: number;
  keyValueHeads: number;
  size: number;
  pageTokens?: PageTokens;
  format?: PageFormat;
  device?: DeviceName | Device;
}): PagedKeyValues {
  const { pages: P, keyValueHeads: G, size: D, pageTokens = 16, format = 'f32', device = 'cpu' } = options;
  const dtype = format === 'i8' ? 'u8' : format;
  const keys = Tensor.empty([P, G, D, pageTokens], { dtype, device });
  const values = Tensor.empty([P, G, pageTokens, D], { dtype, device });
  if (format !== 'i8') return { keys, values };
  const scales = () => Tensor.empty([P, G, pageTokens], { dtype: 'f32', device });
  return { keys, values, keyScales: scales(), valueScales: scales() };
}

/**
 * Takes the queries, keys and values of new tokens apart: norms and rotates queries and keys, and writes keys and
 * values into their pages.
 *
 * @param qkv [R, (H + 2 G) * D] f32, bf16 or f16: of each row the query heads, the key heads, the value heads
 * @param kv written where the rows' tokens lie. Its dtype: that of qkv, or u8 with scales; beside f32 any float
 * @returns q [R, H * D]
 * @throws SHAPE, DTYPE, DEVICE; numbers in `rows` that lead outside the pages or the table fail the stream (seen at its
 *   next join) before anything is written
 * Source: Su et al. 2021, "RoFormer", eq. 34.
 */
export function pagedWrite(qkv: Tensor, kv: PagedKeyValues, rows: PagedRows, options: PagedWriteOptions): Tensor {
  const op = 'paged_write';
  const { heads: H, rotary, queryNorm, keyNorm, eps = 1e-6 } = options;
  expectShape(op, 'qkv', qkv, [null, null], 'view it as [R, (H + 2 G) * D]');
  const { G, D } = expectPages(op, qkv, kv, H, options.keyValueHeads);
  const R = qkv.dim(0);
  expectShape(op, 'qkv', qkv, [R, (H + 2 * G) * D], 'the query heads of a row, its key heads, its value heads');
  const longest = expectRows(op, qkv, rows);
  if (rotary) {
    const { table } = rotary;
    expectShape(op, 'rotary.table', table, [null, null]);
    expectDType(op, 'rotary.table', table, [statisticsDType(qkv.dtype)]);
    if (table.dim(1) % 2 !== 0 || table.dim(1) > D)
      throw new DsError({
        code: 'SHAPE',
        op,
        expected: `an even number of columns in rotary.table, at most D = ${D}`,
        actual: `[${table.shape.join(', ')}]`,
        hint: 'a row holds the cosines of a position and then its sines, one of each for two elements of a head',
      });
  }
  for (const [name, weight, heads] of [['queryNorm', queryNorm, H] as const, ['keyNorm', keyNorm, G] as const]) {
    if (!weight) continue;
    if (weight.numel !== D) expectShape(op, name, weight, [heads * D], `or [${D}], for a norm of each head`);
    expectDType(op, name, weight, [statisticsDType(qkv.dtype), qkv.dtype]);
  }
  expectDevice(op, qkv, rotary?.table, queryNorm, keyNorm);
  const q = Tensor.empty([R, H * D], { dtype: qkv.dtype, device: qkv.device });
  // biome-ignore format: the order of the contract
  native.paged_write(qkv.device.stream.id, q.id, kv.keys.id, kv.values.id, kv.keyScales?.id ?? 0, kv.valueScales?.id ?? 0, qkv.id, rows.starts.id, rows.past.id, rows.pages.id, longest, rotary?.table.id ?? 0, queryNorm?.id ?? 0, keyNorm?.id ?? 0, H, rotary?.interleaved ?? false, eps);
  return q;
}

/**
 * Attends causally from a batch's rows to the tokens of their sequences, whose keys and values are in their pages, those
 * of the rows included: out = softmax(scale * q k^T + slope * (position of key - position of query)) v.
 *
 * On the CPU a row's result is the same to the bit whatever else is in the batch, however its sequence was cut into
 * calls, and for every size of pages and number of threads.
 * @param q [R, H * D] f32, bf16 or f16
 * @returns out [R, H * D]
 * @throws as pagedWrite
 * Source: Dao et al. 2022, "FlashAttention", alg. 1; Kwon et al. 2023, "PagedAttention", sec. 4.3.
 */
export function pagedAttention(q: Tensor, kv: PagedKeyValues, rows: PagedRows, options: PagedAttentionOptions): Tensor {
  const op = 'paged_attention';
  const { heads: H, slopes, window = 0 } = options;
  expectShape(op, 'q', q, [null, null], 'view it as [R, H * D]');
  const { D, page } = expectPages(op, q, kv, H, options.keyValueHeads);
  expectShape(op, 'q', q, [q.dim(0), H * D]);
  const longest = expectRows(op, q, rows);
  const scale = options.scale ?? 1 / Math.sqrt(D);
  if (!Number.isFinite(scale))
    throw new DsError({ code: 'CONFIG', op, expected: 'a finite scale', actual: String(scale) });
  if (options.window !== undefined && !(Number.isInteger(window) && window >= 1 && window < 2 ** 31))
    throw new DsError({ code: 'CONFIG', op, expected: 'a window of at least 1 token', actual: String(window) });
  if (rows.pages.dim(1) * page >= 2 ** 24)
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: 'fewer than 2^24 tokens a sequence',
      actual: `rows.pages for ${rows.pages.dim(1) * page}`,
    });
  if (slopes) {
    expectShape(op, 'slopes', slopes, [H], 'one ALiBi slope a head');
    expectDType(op, 'slopes', slopes, [statisticsDType(q.dtype)]);
    expectDevice(op, q, slopes);
  }
  const out = Tensor.empty(q.shape, { dtype: q.dtype, device: q.device });
  // biome-ignore format: the order of the contract
  native.paged_attention(q.device.stream.id, out.id, q.id, kv.keys.id, kv.values.id, kv.keyScales?.id ?? 0, kv.valueScales?.id ?? 0, rows.starts.id, rows.past.id, rows.pages.id, longest, slopes?.id ?? 0, H, window, scale);
  return out;
}

function expectPages(op: string, x: Tensor, kv: PagedKeyValues, H: number, keyValueHeads = H) {
  const { keys, values, keyScales, valueScales } = kv;
  const G = keyValueHeads;
  expectFloat(op, op === 'paged_write' ? 'qkv' : 'q', x);
  if (!(Number.isInteger(H) && Number.isInteger(G) && G >= 1 && H >= G && H % G === 0))
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: 'heads that are a multiple of keyValueHeads, at least 1',
      actual: `${H} and ${G}`,
      hint: 'every key-value head serves the same number of query heads',
    });
  expectShape(op, 'keys', keys, [null, G, null, null], 'make pages with emptyPages()');
  const [P, , D, page] = keys.shape as [number, number, number, number];
  if (![8, 16, 32].includes(page) || D < 1 || D > 256)
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: 'pages of 8, 16 or 32 tokens, of heads of 1 to 256 elements, for keys [P, G, D, page]',
      actual: `[${keys.shape.join(', ')}]`,
      hint: 'make pages with emptyPages()',
    });
  expectShape(op, 'values', values, [P, G, page, D]);
  expectDType(op, 'keys', keys, x.dtype === 'f32' ? ['f32', 'bf16', 'f16', 'u8'] : [x.dtype, 'u8']);
  expectDType(op, 'values', values, [keys.dtype]);
  expectDevice(op, x, keys, values, keyScales, valueScales);
  for (const [name, scales] of Object.entries({ keyScales, valueScales })) {
    if ((scales !== undefined) !== (keys.dtype === 'u8'))
      throw new DsError({
        code: 'DTYPE',
        op,
        expected: `${name} beside keys of u8, and there only`,
        actual: scales ? `${name} beside ${keys.dtype}` : 'none',
        hint: "make pages with emptyPages({ format: 'i8', ... })",
      });
    if (!scales) continue;
    expectShape(op, name, scales, [P, G, page]);
    expectDType(op, name, scales, [statisticsDType(x.dtype)]);
  }
  return { G, D, page };
}

/** Checks what can be known of rows without their numbers; gives `longest`. */
function expectRows(op: string, x: Tensor, rows: PagedRows): number {
  const { starts, past, pages } = rows;
  const R = x.dim(0);
  const longest = rows.longest ?? R;
  expectShape(op, 'rows.past', past, [null]);
  expectShape(op, 'rows.starts', starts, [past.dim(0) + 1], 'one start more than there are sequences');
  expectShape(op, 'rows.pages', pages, [past.dim(0), null]);
  for (const [name, tensor] of Object.entries({ starts, past, pages }))
    expectDType(op, `rows.${name}`, tensor, ['i32'], "make it with { dtype: 'i32' }");
  expectDevice(op, x, starts, past, pages);
  if (!(Number.isInteger(longest) && longest >= 0 && longest <= R))
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: `rows.longest from 0 to R = ${R}`,
      actual: String(longest),
      hint: 'leave it out, or give the most rows of a sequence',
    });
  return longest;
}
