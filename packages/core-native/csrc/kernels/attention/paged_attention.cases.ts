import { alibiSlopes, pagedAttention } from '@ds/core-native';
import type { OpCase, OpCases, Random } from '../common/cases';
import { makeBatch, pageInputs, rowInputs, type Sequence } from './paged_batch';

interface Settings {
  dtype?: OpCase['dtype'];
  /** Of the pages; default: that of the rows. */
  pages?: OpCase['dtype'];
  alibi?: boolean;
  window?: number;
  page?: 8 | 16 | 32;
  scale?: number;
  longest?: number;
  bench?: boolean;
}

/** sequences: [past, rows] of each. */
function shape(list: [number, number][], H: number, G: number, D: number, settings: Settings = {}): OpCase {
  const { dtype = 'f32', pages, alibi = false, window, page = 16, scale, longest, bench } = settings;
  const sequences: Sequence[] = list.map(([past, rows]) => ({ past, rows }));
  const batch = makeBatch(sequences, page, window);
  const slopes = alibiSlopes(H);
  const some = list.length > 6 ? [...list.slice(0, 5), ['…', list.length] as const] : list;
  const notes = [
    pages ? ` pages ${pages}` : '',
    page === 16 ? '' : ` of ${page}`,
    alibi ? ', ALiBi' : '',
    window ? `, window ${window}` : '',
    scale ? `, scale ${scale}` : '',
    longest ? `, longest ${longest}` : '',
  ];
  return {
    name: `${some.map(([past, rows]) => `${past}+${rows}`).join(' ')} H ${H} G ${G} D ${D} ${dtype}${notes.join('')}`,
    dtype,
    inputs: {
      q: { shape: [batch.rows, H * D] },
      // What is beyond the tokens so far has never been written: it must not be looked at.
      ...pageInputs({ batch, G, D, ...(pages ? { dtype: pages } : {}) }, (random, isToken) =>
        isToken ? random.normal() : Number.NaN,
      ),
      ...rowInputs(batch),
      ...(alibi ? { slopes: { shape: [H], dtype: 'f32', value: (_: Random, i: number) => slopes[i]! } } : {}),
    },
    parameters: {
      heads: H,
      keyValueHeads: G,
      ...(window ? { window } : {}),
      ...(scale ? { scale } : {}),
      ...(longest ? { longest } : {}),
    },
    ...(bench ? { bench: true } : {}),
  };
}

const ones = (n: number, past: number): [number, number][] => Array.from({ length: n }, () => [past, 1]);

export const pagedAttentionCases: OpCases = {
  op: 'paged_attention',
  cases: [
    // Nothing, one token, and lengths about the size of a page and of a block of keys.
    shape([], 1, 1, 8),
    shape([[0, 0]], 1, 1, 8),
    shape([[0, 1]], 1, 1, 1),
    ...([8, 16, 32] as const).flatMap((page) => [
      shape(
        [0, 1, page - 1, page, page + 1].map((past) => [past, 1]),
        2,
        1,
        16,
        { page, alibi: true },
      ),
      shape(
        [
          [page - 1, 2],
          [0, page + 1],
          [3, 0],
          [63, 13],
          [64, 30],
        ],
        2,
        2,
        20,
        { page },
      ),
    ]),
    // Decoding and prompts side by side; every relation of heads.
    shape(
      [
        [70, 1],
        [0, 40],
        [5, 3],
        [130, 14],
      ],
      4,
      4,
      24,
      { alibi: true },
    ),
    shape(
      [
        [70, 1],
        [0, 40],
        [5, 3],
        [130, 14],
      ],
      4,
      2,
      16,
    ),
    shape(
      [
        [70, 1],
        [0, 40],
        [5, 3],
        [130, 14],
      ],
      6,
      1,
      20,
      { alibi: true, scale: 0.3 },
    ),
    shape(
      [
        [70, 1],
        [5, 3],
        [130, 8],
      ],
      6,
      2,
      20,
      { alibi: true, longest: 8 },
    ),
    // More rows that share a key-value head than go together; more than a segment of keys.
    shape([[600, 5]], 9, 1, 16),
    shape([[1100, 1]], 2, 1, 8, { alibi: true }),
    shape(
      [
        [500, 30],
        [1030, 2],
      ],
      2,
      2,
      8,
    ),
    shape(ones(9, 530), 2, 2, 8, { alibi: true }),
    shape([[480, 300]], 1, 1, 8, { alibi: true }),
    // Windows within a block, over several, and beyond the sequence.
    ...[1, 5, 33, 100, 1000].flatMap((window) => [
      shape(
        [
          [90, 1],
          [40, 4],
          [0, 3],
        ],
        2,
        1,
        16,
        { window, page: 8 },
      ),
      shape(
        [
          [90, 20],
          [0, 70],
        ],
        2,
        2,
        12,
        { window, alibi: window === 33 },
      ),
    ]),
    shape(
      [
        [1500, 1],
        [700, 14],
      ],
      1,
      1,
      8,
      { window: 530, page: 32 },
    ),
    // Head sizes.
    ...[3, 64, 80, 128, 256].flatMap((D) => [shape([[30, 1]], 2, 1, D), shape([[20, 17]], 1, 1, D)]),
    // Every dtype of rows and of pages.
    ...(['bf16', 'f16'] as const).flatMap((dtype) => [
      shape(
        [
          [70, 1],
          [20, 33],
        ],
        4,
        2,
        20,
        { dtype, alibi: true },
      ),
      shape(
        [
          [70, 2],
          [20, 19],
        ],
        2,
        1,
        64,
        { dtype },
      ),
      shape(
        [
          [70, 1],
          [20, 33],
        ],
        4,
        2,
        16,
        { dtype, pages: 'u8', page: 8 },
      ),
      shape(
        [
          [70, 1],
          [20, 33],
        ],
        4,
        1,
        48,
        { dtype, pages: 'u8', window: 30 },
      ),
    ]),
    ...(['bf16', 'f16', 'u8'] as const).flatMap((pages) => [
      shape(
        [
          [70, 1],
          [20, 33],
        ],
        4,
        2,
        20,
        { pages, alibi: true },
      ),
      shape(
        [
          [70, 3],
          [540, 13],
        ],
        2,
        2,
        64,
        { pages, page: 32 },
      ),
      shape(
        [
          [77, 2],
          [0, 17],
        ],
        2,
        1,
        16,
        { pages, window: 25, page: 8 },
      ),
    ]),
    shape([[2047, 1]], 16, 16, 64, { bench: true }),
    shape([[8191, 1]], 8, 1, 128, { pages: 'bf16', bench: true }),
    shape(ones(8, 1023), 32, 8, 64, { pages: 'bf16', bench: true }),
    shape(ones(8, 1023), 32, 8, 64, { pages: 'u8', bench: true }),
    shape(ones(32, 511), 12, 12, 64, { pages: 'f16', bench: true }),
    shape([[0, 512]], 16, 16, 64, { bench: true }),
    shape([[512, 512]], 16, 16, 64, { bench: true }),
    shape([[512, 512]], 16, 4, 64, { pages: 'bf16', bench: true }),
  ],
  run({ q, keys, values, keyScales, valueScales, starts, past, pages, slopes }, parameters) {
    const { longest, ...options } = parameters as unknown as { longest?: number; heads: number };
    const out = pagedAttention(
      q!,
      { keys: keys!, values: values!, ...(keyScales ? { keyScales, valueScales: valueScales! } : {}) },
      { starts: starts!, past: past!, pages: pages!, ...(longest ? { longest } : {}) },
      { ...options, ...(slopes ? { slopes } : {}) },
    );
    return { out };
  },
  sumLength: (c) => Math.max(c.inputs.keys!.shape[2]!, ...seen(c)),
  // The pages' tokens are read once, and the rows; the tables are small.
  bytes: (c) => {
    const { keys, q } = c.inputs;
    const [, G, D] = keys!.shape as [number, number, number];
    const size = { f32: 4, u8: 1, bf16: 2, f16: 2, f64: 8, i32: 4 };
    const token = 2 * G * (D * size[keys!.dtype ?? c.dtype] + (keys!.dtype === 'u8' ? 4 : 0));
    const tokens = lengths(c).reduce((n, { past, rows }) => n + Math.min(past + rows, reach(c) + rows - 1), 0);
    return tokens * token + 2 * q!.shape[0]! * q!.shape[1]! * size[c.dtype];
  },
  flops: (c) => 4 * c.inputs.q!.shape[1]! * seen(c).reduce((n, tokens) => n + tokens, 0),
};

function reach(c: OpCase): number {
  return (c.parameters?.window as number | undefined) ?? Number.POSITIVE_INFINITY;
}

function lengths(c: OpCase): Sequence[] {
  const number = (name: string, i: number) => c.inputs[name]!.value!(undefined as unknown as Random, i);
  return Array.from({ length: c.inputs.past!.shape[0]! }, (_, s) => ({
    past: number('past', s),
    rows: number('starts', s + 1) - number('starts', s),
  }));
}

/** Tokens that each row sees. */
function seen(c: OpCase): number[] {
  return lengths(c).flatMap(({ past, rows }) =>
    Array.from({ length: rows }, (_, t) => Math.min(reach(c), past + t + 1)),
  );
}
