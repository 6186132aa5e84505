import { pagedWrite } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';
import { makeBatch, pageInputs, rowInputs, type Sequence } from './paged_batch';

interface Settings {
  dtype?: OpCase['dtype'];
  /** Of the pages; default: that of the rows. */
  pages?: OpCase['dtype'];
  /** Elements of a head that are rotated. */
  rotary?: number;
  interleaved?: boolean;
  /** Over each head, or over all heads of a row. */
  norm?: 'head' | 'row';
  weights?: OpCase['dtype'];
  page?: 8 | 16 | 32;
  bench?: boolean;
}

/** sequences: [past, rows] of each. */
function shape(list: [number, number][], H: number, G: number, D: number, settings: Settings = {}): OpCase {
  const { dtype = 'f32', pages, rotary, interleaved = false, norm, weights = 'f32', page = 16, bench } = settings;
  const sequences: Sequence[] = list.map(([past, rows]) => ({ past, rows }));
  const batch = makeBatch(sequences, page);
  const positions = Math.max(1, ...list.map(([past, rows]) => past + rows));
  const weight = (heads: number) => ({ shape: [norm === 'row' ? heads * D : D], dtype: weights });
  const notes = [
    pages ? ` pages ${pages}` : '',
    page === 16 ? '' : ` of ${page}`,
    rotary ? `, rotary ${rotary}${interleaved ? ' interleaved' : ''}` : '',
    norm ? `, norm of each ${norm} ${weights}` : '',
  ];
  const half = (rotary ?? 0) / 2;
  return {
    name: `${list.map(([past, rows]) => `${past}+${rows}`).join(' ')} H ${H} G ${G} D ${D} ${dtype}${notes.join('')}`,
    dtype,
    inputs: {
      qkv: { shape: [batch.rows, (H + 2 * G) * D] },
      ...pageInputs({ batch, G, D, ...(pages ? { dtype: pages } : {}) }, (random) => random.normal()),
      ...rowInputs(batch),
      ...(rotary
        ? {
            table: {
              shape: [positions, rotary],
              dtype: 'f32',
              value: (_, i) => {
                const column = i % rotary;
                const angle = Math.floor(i / rotary) * 10 ** (-(column % half) / half);
                return column < half ? Math.cos(angle) : Math.sin(angle);
              },
            },
          }
        : {}),
      ...(norm ? { queryNorm: weight(H), keyNorm: weight(G) } : {}),
    },
    parameters: { heads: H, keyValueHeads: G, interleaved, eps: 1e-5 },
    ...(bench ? { bench: true } : {}),
  };
}

const some: [number, number][] = [
  [0, 1],
  [15, 3],
  [7, 0],
  [16, 1],
  [30, 20],
];

export const pagedWriteCases: OpCases = {
  op: 'paged_write',
  cases: [
    shape([], 1, 1, 8),
    shape([[0, 1]], 1, 1, 1),
    ...([8, 16, 32] as const).map((page) => shape(some, 2, 2, 20, { page })),
    shape(some, 4, 1, 16, { rotary: 16 }),
    shape(some, 4, 2, 20, { rotary: 6 }),
    shape(some, 4, 4, 80, { rotary: 20, interleaved: true }),
    shape(some, 2, 2, 64, { rotary: 64, interleaved: true }),
    shape(some, 4, 2, 20, { norm: 'head', rotary: 20 }),
    shape(some, 4, 2, 20, { norm: 'row', rotary: 20 }),
    shape(some, 2, 2, 256, { norm: 'head' }),
    shape(some, 6, 3, 128, { norm: 'row', rotary: 128 }),
    ...(['bf16', 'f16'] as const).flatMap((dtype) => [
      shape(some, 4, 2, 20, { dtype, norm: 'head', weights: dtype, rotary: 12 }),
      shape(some, 4, 2, 64, { dtype, norm: 'row', rotary: 64 }),
      shape(some, 2, 1, 24, { dtype, page: 8 }),
      shape(some, 2, 1, 24, { dtype, pages: 'u8' }),
      shape(some, 2, 1, 24, { pages: dtype, page: 32 }),
    ]),
    shape(some, 2, 1, 20, { pages: 'u8' }),
    shape(some, 2, 2, 128, { pages: 'u8', page: 8 }),
    shape([[0, 512]], 16, 16, 64, { pages: 'bf16', bench: true }),
    shape([[0, 512]], 32, 8, 64, { rotary: 64, norm: 'head', bench: true }),
  ],
  run({ qkv, keys, values, keyScales, valueScales, starts, past, pages, table, queryNorm, keyNorm }, parameters) {
    const { interleaved, ...options } = parameters as { heads: number; interleaved: boolean };
    const scales = keyScales ? { keyScales, valueScales: valueScales! } : {};
    const q = pagedWrite(
      qkv!,
      { keys: keys!, values: values!, ...scales },
      { starts: starts!, past: past!, pages: pages! },
      {
        ...options,
        ...(table ? { rotary: { table, interleaved } } : {}),
        ...(queryNorm ? { queryNorm, keyNorm: keyNorm! } : {}),
      },
    );
    const written = { keys, values, ...scales };
    const views = Object.entries(written).map(([name, tensor]) => [name, tensor!.view(tensor!.shape)]);
    return { q, ...Object.fromEntries(views) };
  },
  sumLength: (c) => (c.inputs.queryNorm ? c.inputs.qkv!.shape[1]! : 1),
  bytes: (c) => {
    const [R, width] = c.inputs.qkv!.shape as [number, number];
    return R * width * 2 * (c.dtype === 'f32' ? 4 : 2);
  },
  flops: (c) => c.inputs.qkv!.shape.reduce((n, d) => n * d, 6),
};
