import { alibiSlopes, attentionCached } from '@ds/core-native';
import type { OpCase, OpCases, Random } from '../common/cases';

interface Settings {
  dtype?: OpCase['dtype'];
  alibi?: boolean;
  /** Columns of a mask with padding left in row 0 and holes in the others. */
  maskColumns?: number;
  bench?: boolean;
}

/** The place of element `i` of a head's part of the key cache: groups of 16 tokens, each [D, 16], the last one narrower. */
function keyPlace(i: number, S: number, D: number): number {
  const group = Math.floor(i / (16 * D)) * 16;
  return group + ((i - group * D) % Math.min(16, S - group));
}

function shape(B: number, T: number, past: number, H: number, D: number, S: number, settings: Settings = {}): OpCase {
  const { dtype = 'f32', alibi = true, maskColumns, bench } = settings;
  const slopes = alibiSlopes(H);
  // What is beyond the tokens so far has never been written: it must not be looked at.
  const written = (random: Random, place: number) => (place < past ? random.normal() : Number.NaN);
  return {
    name: `B ${B} T ${T} past ${past} of ${S} H ${H} D ${D} ${dtype}${alibi ? '' : ', no slopes'}${maskColumns ? ', mask' : ''}`,
    dtype,
    inputs: {
      qkv: { shape: [B, T, H * 3 * D] },
      keys: { shape: [B, H, S, D], value: (random, i) => written(random, keyPlace(i % (S * D), S, D)) },
      values: { shape: [B, H, S, D], value: (random, i) => written(random, Math.floor(i / D) % S) },
      ...(alibi ? { slopes: { shape: [H], dtype: 'f32', value: (_: Random, i: number) => slopes[i]! } } : {}),
      ...(maskColumns
        ? {
            mask: {
              shape: [B, maskColumns],
              dtype: 'u8',
              value: (_: Random, i: number) => Number(i < maskColumns ? i > 2 : (7 * i) % 3 > 0),
            },
          }
        : {}),
    },
    parameters: { heads: H, past },
    ...(bench ? { bench: true } : {}),
  };
}

export const attentionCachedCases: OpCases = {
  op: 'attention_cached',
  cases: [
    shape(1, 1, 0, 1, 8, 16),
    shape(0, 1, 3, 1, 8, 16),
    shape(2, 0, 3, 1, 8, 16),
    // A few tokens take one way through the kernel, many another; the cache ends inside, at and past a group of 16.
    ...[1, 4, 5, 16, 70].flatMap((T) => [0, 15, 64, 100].map((past) => shape(2, T, past, 2, 20, past + T + 3))),
    shape(1, 1, 15, 1, 16, 16),
    shape(1, 3, 13, 1, 16, 16, { alibi: false }),
    ...[1, 5, 33].map((T) => shape(3, T, 50, 6, 24, 90, { maskColumns: 50 + T })),
    shape(2, 2, 0, 1, 16, 20, { maskColumns: 20 }),
    ...[1, 80, 96, 128, 256].map((D) => shape(1, 1, 70, 1, D, 77)),
    // Far keys of steep heads are skipped.
    shape(1, 1, 600, 8, 16, 640),
    shape(1, 300, 300, 8, 16, 640),
    ...(['bf16', 'f16'] as const).flatMap((dtype) => [
      shape(2, 1, 70, 2, 20, 75, { dtype, maskColumns: 75 }),
      shape(2, 20, 70, 2, 20, 90, { dtype, alibi: false }),
    ]),
    shape(1, 1, 2047, 16, 64, 2048, { bench: true }),
    shape(8, 1, 1023, 16, 64, 1024, { dtype: 'bf16', bench: true }),
    shape(1, 512, 512, 16, 64, 1024, { bench: true }),
  ],
  run({ qkv, keys, values, slopes, mask }, parameters) {
    const { heads, past } = parameters as { heads: number; past: number };
    const out = attentionCached(qkv!, keys!, values!, {
      heads,
      past,
      ...(slopes ? { slopes } : {}),
      ...(mask ? { mask } : {}),
    });
    return { out, keys: keys!.view(keys!.shape), values: values!.view(values!.shape) };
  },
  sumLength: (c) => Math.max(...c.inputs.keys!.shape),
  // Every key and value so far is read once.
  bytes: (c) => {
    const [B, H, , D] = c.inputs.keys!.shape as [number, number, number, number];
    return 2 * B * H * D * seen(c) * (c.dtype === 'f32' ? 4 : 2);
  },
  flops: (c) => {
    const [B, H, , D] = c.inputs.keys!.shape as [number, number, number, number];
    const T = c.inputs.qkv!.shape[1]!;
    return 4 * B * H * D * T * (seen(c) - (T - 1) / 2);
  },
};

/** Keys that the last token sees. */
function seen(c: OpCase): number {
  return (c.parameters?.past as number) + c.inputs.qkv!.shape[1]!;
}
