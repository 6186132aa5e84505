/** Batches for the cases and tests of the paged ops: sequences, and pages for them in an order that is nobody's. */
import type { Input, Random } from '../common/cases';

export interface Sequence {
  /** Tokens before the batch's. */
  past: number;
  /** Tokens of the batch. */
  rows: number;
}

export interface PagedBatch {
  sequences: readonly Sequence[];
  page: number;
  rows: number;
  /** P, with some that belong to nobody. */
  pages: number;
  starts: number[];
  past: number[];
  /** [S, M] */
  table: number[][];
  /** Tokens that each page holds, from its first place on. */
  held: number[];
}

/**
 * Lays sequences out. Entries of the table that no row needs are -1: those behind the last token, and with a window those
 * that its rows no longer see.
 */
export function makeBatch(sequences: readonly Sequence[], page: number, window?: number): PagedBatch {
  const counts = sequences.map(({ past, rows }) => Math.ceil((past + rows) / page));
  const used = counts.reduce((a, b) => a + b, 0);
  let pages = used + 2;
  while (pages % 7 === 0) pages++;
  const columns = Math.max(1, ...counts) + 1;
  const held = new Array<number>(pages).fill(0);
  let next = 0;
  const table = sequences.map(({ past, rows }) =>
    Array.from({ length: columns }, (_, i) => {
      const tokens = Math.min(page, past + rows - i * page);
      if (rows === 0 || tokens <= 0) return -1;
      const id = (next++ * 7 + 1) % pages;
      if (window && (i + 1) * page <= past - window + 1) return -1;
      held[id] = tokens;
      return id;
    }),
  );
  const starts = [0];
  for (const { rows } of sequences) starts.push(starts.at(-1)! + rows);
  return { sequences, page, rows: starts.at(-1)!, pages, starts, past: sequences.map((s) => s.past), table, held };
}

/** The inputs of a case that say which rows there are. */
export function rowInputs({ sequences, starts, past, table }: PagedBatch): Record<string, Input> {
  const numbers = (shape: number[], values: number[]): Input => ({ shape, dtype: 'i32', value: (_, i) => values[i]! });
  return {
    starts: numbers([starts.length], starts),
    past: numbers([past.length], past),
    pages: numbers([sequences.length, table[0]?.length ?? 1], table.flat()),
  };
}

export interface PageShape {
  batch: PagedBatch;
  G: number;
  D: number;
  /** Default: the case's dtype. */
  dtype?: Input['dtype'];
}

/** Pages as inputs: `value` makes the element of a token, or of a place that holds none. */
export function pageInputs(
  { batch: { page, pages: P, held }, G, D, dtype }: PageShape,
  value: (random: Random, isToken: boolean) => number,
): Record<string, Input> {
  const of = dtype ? { dtype } : {};
  const number = (random: Random, isToken: boolean): number =>
    dtype === 'u8' ? random.integer(256) : value(random, isToken);
  const scale = (random: Random, i: number): number => {
    const isToken = i % page < held[Math.floor(i / (G * page))]!;
    return isToken ? 0.004 + 0.02 * random.uniform() : Number.NaN;
  };
  const scales: Input = { shape: [P, G, page], dtype: 'f32', value: scale };
  return {
    keys: {
      shape: [P, G, D, page],
      ...of,
      value: (random, i) => number(random, i % page < held[Math.floor(i / (G * D * page))]!),
    },
    values: {
      shape: [P, G, page, D],
      ...of,
      value: (random, i) => number(random, Math.floor(i / D) % page < held[Math.floor(i / (G * D * page))]!),
    },
    ...(dtype === 'u8' ? { keyScales: scales, valueScales: scales } : {}),
  };
}
