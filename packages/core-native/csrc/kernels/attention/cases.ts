/** Layouts that the cases of the block-sparse ops are drawn with. */
import { BlockLayout } from '@ds/core-native';
import { type OpCase, Random } from '../common/cases';

export type Pattern = 'all' | 'window' | 'random' | 'holes' | 'globals' | 'none';

export const patterns: readonly Pattern[] = ['all', 'window', 'random', 'holes', 'globals', 'none'];

/** Whether a block exists. `holes` has rows and columns without any block. */
function isThere(pattern: Pattern, r: number, c: number, random: Random): boolean {
  const drawn = random.uniform();
  if (pattern === 'all') return true;
  if (pattern === 'none') return false;
  if (pattern === 'window') return Math.abs(r - c) <= 1;
  if (pattern === 'random') return drawn < 0.4;
  if (pattern === 'holes') return r % 3 !== 1 && c % 4 !== 2 && drawn < 0.7;
  return r === 0 || c === 1 || Math.floor(r / 4) === Math.floor(c / 4);
}

export interface Drawing {
  heads: number;
  block: number;
  blocks: number;
  /** Distinct layouts, given to the heads in turn. */
  layouts: number;
  pattern: Pattern;
}

/** A drawing as the parameters of a case. */
export function drawn({ pattern, ...sizes }: Drawing): Record<string, number> {
  return { ...sizes, pattern: patterns.indexOf(pattern) };
}

const compiled = new Map<string, BlockLayout>();

/** The layout of a case: equal parameters give the same one, also to the backward call. */
export function layoutOf(parameters: OpCase['parameters']): BlockLayout {
  const { heads, block, blocks: N, layouts, pattern } = parameters as unknown as Record<keyof Drawing, number>;
  const key = [heads, block, N, layouts, pattern].join(' ');
  let layout = compiled.get(key);
  if (!layout) {
    const random = new Random(N * 31 + pattern);
    const isOne = (_: unknown, i: number) => Number(isThere(patterns[pattern]!, Math.floor(i / N), i % N, random));
    layout = new BlockLayout({
      block,
      blocks: N,
      layouts: Array.from({ length: layouts }, () => Uint8Array.from({ length: N * N }, isOne)),
      headLayout: Array.from({ length: heads }, (_, h) => h % layouts),
    });
    compiled.set(key, layout);
  }
  return layout;
}
