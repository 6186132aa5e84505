/** Layouts against DeepSpeed's own (golden), and against the rules stated one block at a time. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { RandomBlocks } from './random-blocks';
import { type SparseLayout, sparseLayout } from './sparse-layout';
import { type ResolvedSparsity, resolveSparsity, type SparsityConfig, sparsityProblems } from './sparsity-config';

const modes = {
  Dense: 'dense',
  Fixed: 'fixed',
  Variable: 'variable',
  BigBird: 'bigbird',
  BSLongformer: 'bslongformer',
  LocalSlidingWindow: 'local_sliding_window',
} as const;

interface GoldenCase {
  n: number;
  cls: keyof typeof modes;
  config: { num_heads: number; [key: string]: unknown };
  seq_len: number;
  cropped_from?: number;
  layouts: string[][];
  head_layout: number[];
  nnz: number[];
  error?: true;
}

const golden = JSON.parse(
  readFileSync(path.resolve(__dirname, '../../../../test/golden/sparse-layouts.json'), 'utf8'),
) as { cases: GoldenCase[] };

function build({ cls, config: { num_heads: heads, ...config }, seq_len, cropped_from }: GoldenCase): SparseLayout {
  const given = { mode: modes[cls], ...config, ...(cropped_from ? { max_seq_length: cropped_from } : {}) };
  return sparseLayout(given as SparsityConfig, { heads, sequenceLength: seq_len });
}

const nameOf = (c: GoldenCase) => `${c.n} ${c.cls} ${JSON.stringify(c.config)} ${c.seq_len}`;
const rowsOf = (cells: Uint8Array, N: number) =>
  Array.from({ length: N }, (_, row) => cells.subarray(row * N, (row + 1) * N).join(''));
const nnzOf = (cells: Uint8Array) => cells.reduce((sum, cell) => sum + cell, 0);

describe('the layouts of DeepSpeed', () => {
  const good = golden.cases.filter(({ error }) => !error);
  const refused = golden.cases.filter(({ error }) => error);

  it('are 40, and 11 are refused', () => {
    expect([good.length, refused.length]).toEqual([40, 11]);
  });

  it.each(good.map((c) => [nameOf(c), c] as const))('%s', (_, c) => {
    const { block, blocks, layouts, headLayout } = build(c);
    expect(blocks * block).toBe(c.seq_len);
    expect(layouts.map((cells) => rowsOf(cells, blocks))).toEqual(c.layouts);
    expect(headLayout).toEqual(c.head_layout);
    expect(layouts.map(nnzOf)).toEqual(c.nnz);
  });

  it.each(refused.map((c) => [nameOf(c), c] as const))('refuses %s', (_, c) => {
    expect(() => build(c)).toThrow(/sparse_attention.*expected.*got/s);
  });
});

/** Whole numbers that look random and are always the same. */
class Numbers {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(n: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * n);
  }
}

type Rule = (row: number, column: number, N: number, head: number) => boolean;

/** The rules again, as a question about one block; random blocks apart. */
function ruleOf(s: ResolvedSparsity): Rule {
  const forward = s.mode !== 'dense' && s.attention === 'unidirectional';
  const inRanges = (
    at: number,
    {
      global_block_indices: starts,
      global_block_end_indices: ends,
    }: Pick<Extract<ResolvedSparsity, { mode: 'variable' }>, 'global_block_indices' | 'global_block_end_indices'>,
  ) => starts.map((start, i) => [start, ends?.[i] ?? start + 1] as const).filter(([a, b]) => at >= a && at < b);
  switch (s.mode) {
    case 'dense':
      return () => true;
    case 'local_sliding_window': {
      const w = Math.floor(s.num_sliding_window_blocks / 2);
      return (r, c) => Math.abs(r - c) <= w && !(forward && c > r);
    }
    case 'bslongformer': {
      const w = Math.floor(s.num_sliding_window_blocks / 2);
      return (r, c) =>
        (Math.abs(r - c) <= w || inRanges(r, s).length > 0 || inRanges(c, s).length > 0) && !(forward && c > r);
    }
    case 'bigbird': {
      const w = Math.floor(s.num_sliding_window_blocks / 2);
      return (r, c) => (Math.abs(r - c) <= w || Math.min(r, c) < s.num_global_blocks) && !(forward && c > r);
    }
    case 'variable':
      return (r, c) => {
        let windowOfRow = 0;
        let windowOfColumn = 0;
        for (let at = 0, i = 0; at <= Math.max(r, c); i++) {
          const size = s.local_window_blocks[Math.min(i, s.local_window_blocks.length - 1)]!;
          if (r >= at && r < at + size) windowOfRow = i;
          if (c >= at && c < at + size) windowOfColumn = i;
          at += size;
        }
        const local = windowOfRow === windowOfColumn && !(forward && c > r);
        const column = inRanges(c, s).some(([start]) => !forward || r >= start);
        return local || column || (s.horizontal_global_attention && inRanges(r, s).length > 0);
      };
    case 'fixed':
      return (r, c, N, head) => {
        const { num_local_blocks: L, num_global_blocks: G } = s;
        const local = Math.floor(r / L) === Math.floor(c / L) && !(forward && c > r);
        const first = L - (1 + (head % s.num_different_global_patterns)) * G;
        // The global blocks of the window of `at`: its start, or undefined where `at` is no global block.
        const globalOf = (at: number): number | undefined => {
          const whole = N - (N % L);
          for (let w = 0; w < whole; w += L) if (at >= w + first && at < w + first + G) return w + first;
          if (whole === N) return undefined;
          const start = Math.min(whole + first, N - G);
          const from = start < 0 ? Math.max(0, N + start) : start;
          return at >= from && at < start + G ? from : undefined;
        };
        const start = globalOf(c);
        const column = start !== undefined && (!forward || r >= start);
        return local || column || (s.horizontal_global_attention && globalOf(r) !== undefined);
      };
  }
}

/** A random pattern that its own rules allow, and the blocks and heads to build it for. */
function randomConfig(
  mode: SparsityConfig['mode'],
  random: Numbers,
): { config: SparsityConfig; N: number; heads: number } {
  const N = 1 + random.below(24);
  const heads = 1 + random.below(4);
  const pick = <T>(...of: T[]): T => of[random.below(of.length)]!;
  const attention = pick('bidirectional' as const, 'unidirectional' as const);
  const horizontal_global_attention = attention === 'bidirectional' && pick(true, false);
  const different_layout_per_head = pick(true, false);
  const common = { block: pick(16, 32, 64, 128), seed: random.below(2 ** 31) };
  const window = { num_sliding_window_blocks: 1 + random.below(N) };
  const starts = Array.from({ length: random.below(4) }, () => random.below(N + 3));
  const ranges = {
    global_block_indices: starts,
    global_block_end_indices: pick(
      null,
      starts.map((start) => start + 1 + random.below(4)),
    ),
  };
  const num_random_blocks = random.below(Math.min(4, N + 1));
  const made = (): SparsityConfig => {
    switch (mode) {
      case 'dense':
        return { mode, ...common, different_layout_per_head };
      case 'local_sliding_window':
        return { mode, ...common, ...window, attention };
      case 'bslongformer':
        return { mode, ...common, ...window, ...ranges, attention, different_layout_per_head };
      case 'bigbird': {
        const num_global_blocks = random.below(N + 1);
        return {
          mode,
          ...common,
          ...window,
          num_global_blocks,
          num_random_blocks,
          attention,
          different_layout_per_head,
        };
      }
      case 'variable': {
        const local_window_blocks = Array.from({ length: 1 + random.below(3) }, () => 1 + random.below(5));
        return {
          mode,
          ...common,
          ...ranges,
          local_window_blocks,
          num_random_blocks,
          attention,
          horizontal_global_attention,
          different_layout_per_head,
        };
      }
      case 'fixed': {
        const num_global_blocks = 1 + random.below(3);
        const places = 1 + random.below(4);
        return {
          mode,
          ...common,
          num_global_blocks,
          num_local_blocks: places * num_global_blocks,
          num_different_global_patterns: different_layout_per_head ? 1 + random.below(places) : 1,
          attention,
          horizontal_global_attention,
          different_layout_per_head,
        };
      }
    }
  };
  return { config: made(), N, heads };
}

describe.each(Object.values(modes))('500 random patterns of %s', (mode) => {
  it('are what the rules say of every block', () => {
    const random = new Numbers(mode.length * 7919);
    for (let i = 0; i < 500; i++) {
      const { config, N, heads } = randomConfig(mode, random);
      const s = resolveSparsity(config);
      const layout = sparseLayout(config, { heads, sequenceLength: N * s.block });
      const rule = ruleOf(s);
      const perHead = 'different_layout_per_head' in s && s.different_layout_per_head;
      const drawn = 'num_random_blocks' in s ? s.num_random_blocks : 0;
      const forward = s.mode !== 'dense' && s.attention === 'unidirectional';
      for (let head = 0; head < heads; head++) {
        const cells = layout.layouts[layout.headLayout[head]!]!;
        for (let r = 0; r < N; r++) {
          let others = 0;
          for (let c = 0; c < N; c++) {
            const wanted = rule(r, c, N, perHead ? head : 0);
            const has = cells[r * N + c] === 1;
            if (wanted && !has)
              throw new Error(`${JSON.stringify(config)} N ${N}: head ${head} lacks block ${r}, ${c}`);
            if (has && !wanted) others++;
            // Random blocks of `variable` may lie ahead of their row, those of `bigbird` may not.
            if (has && forward && c > r && mode === 'bigbird') throw new Error(`future block ${r}, ${c}`);
          }
          if (others > drawn)
            throw new Error(`${JSON.stringify(config)} N ${N}: row ${r} has ${others} blocks too many`);
        }
      }
    }
  });
});

describe('the number of blocks', () => {
  const nnz = (config: SparsityConfig, N: number) =>
    nnzOf(sparseLayout(config, { heads: 1, sequenceLength: N * 16 }).layouts[0]!);

  it('follows from the pattern', () => {
    for (const N of [8, 9, 16, 33, 64]) {
      expect(nnz({ mode: 'dense' }, N)).toBe(N * N);
      for (const w of [0, 1, 3]) {
        const window = { num_sliding_window_blocks: 2 * w + 1 };
        const banded = N * (2 * w + 1) - w * (w + 1);
        expect(nnz({ mode: 'local_sliding_window', ...window }, N)).toBe((banded + N) / 2);
        expect(nnz({ mode: 'local_sliding_window', attention: 'bidirectional', ...window }, N)).toBe(banded);
        // A global row and column, of which the band has 2 w + 1 already.
        const bird = { mode: 'bigbird', num_random_blocks: 0, num_global_blocks: 1, ...window } as const;
        expect(nnz(bird, N)).toBe(banded + 2 * N - 1 - (2 * w + 1));
        const longformer = { mode: 'bslongformer', global_block_indices: [0], ...window } as const;
        expect(nnz({ ...longformer, attention: 'unidirectional' }, N)).toBe((banded + N) / 2 + N - 1 - w);
      }
    }
    // Fixed in whole windows: local N L, global G columns in each of N / L windows for all rows, but once in their own.
    for (const [N, L, G] of [
      [16, 4, 1],
      [32, 8, 2],
      [36, 6, 6],
    ] as const)
      expect(nnz({ mode: 'fixed', num_local_blocks: L, num_global_blocks: G }, N)).toBe(N * L + (N / L) * G * (N - L));
  });

  it('has random blocks on top, as many distinct ones a row as asked for', () => {
    const config = { mode: 'variable', global_block_indices: [], local_window_blocks: [1], block: 16 } as const;
    for (const count of [1, 3, 20]) {
      const { layouts } = sparseLayout({ ...config, num_random_blocks: count }, { heads: 1, sequenceLength: 320 });
      for (const row of rowsOf(layouts[0]!, 20)) {
        // One of them may be on the diagonal, where the window is.
        const ones = [...row].filter((cell) => cell === '1').length;
        expect([count, Math.min(20, count + 1)]).toContain(ones);
      }
    }
  });
});

describe('random blocks', () => {
  const config = { mode: 'bigbird', num_random_blocks: 2, different_layout_per_head: true } as const;
  const size = { heads: 3, sequenceLength: 512 };

  it('are the same for the same seed, and others for another seed or head', () => {
    const one = sparseLayout({ ...config, seed: 7 }, size);
    expect(sparseLayout({ ...config, seed: 7 }, size)).toEqual(one);
    expect(one.headLayout).toEqual([0, 1, 2]);
    expect(sparseLayout({ ...config, seed: 8 }, size)).not.toEqual(one);
    expect(sparseLayout({ ...config, seed: 7 + 2 ** 32 }, size)).not.toEqual(one);
  });

  it('keep their numbers: another generator would change trained models', () => {
    expect(new RandomBlocks(0, 0).sample(6, 32)).toEqual([8, 1, 0, 7, 17, 19]);
    expect(new RandomBlocks(2 ** 40 + 3, 5).sample(6, 1000)).toEqual([409, 602, 903, 541, 913, 86]);
  });

  it('reach every block about equally often', () => {
    const counts = new Array<number>(10).fill(0);
    const random = new RandomBlocks(3, 0);
    for (let i = 0; i < 4000; i++) {
      const drawn = random.sample(3, 10);
      expect(new Set(drawn).size).toBe(3);
      for (const block of drawn) counts[block]!++;
    }
    // 1200 expected with a standard deviation of 29.
    for (const count of counts) expect(Math.abs(count - 1200)).toBeLessThan(150);
  });
});

describe('patterns that cannot be', () => {
  it.each([
    [{ mode: 'fixd' }, 'mode', /"fixed"/],
    [{ mode: 'fixed', block: 24 }, 'block', /one of 16, 32, 64, 128/],
    [
      { mode: 'fixed', num_local_blocks: 4, num_global_blocks: 3 },
      'num_local_blocks',
      /multiple of num_global_blocks 3/,
    ],
    [{ mode: 'fixed', num_global_blocks: 0 }, 'num_global_blocks', />= 1/],
    [{ mode: 'fixed', attention: 'causal' }, 'attention', /"bidirectional" or "unidirectional"/],
    [{ mode: 'fixed', num_random_blocks: 1 }, 'num_random_blocks', /a key of mode "fixed"/],
    [{ mode: 'bigbird', num_random_blocks: -1 }, 'num_random_blocks', />= 0/],
    [{ mode: 'bigbird', num_sliding_window_blocks: 1.5 }, 'num_sliding_window_blocks', />= 1/],
    [{ mode: 'variable', local_window_blocks: [] }, 'local_window_blocks', /a list of whole numbers/],
    [{ mode: 'variable', global_block_indices: [-1] }, 'global_block_indices', />= 0/],
    [
      { mode: 'bslongformer', global_block_indices: [1], global_block_end_indices: [1] },
      'global_block_end_indices',
      /behind/,
    ],
    [{ mode: 'local_sliding_window', different_layout_per_head: true }, 'different_layout_per_head', /a key of mode/],
    [{ mode: 'dense', different_layout_per_head: 1 }, 'different_layout_per_head', /true or false/],
    [{ mode: 'bigbird', seed: -3 }, 'seed', />= 0/],
    [{ mode: 'dense', max_seq_length: 0 }, 'max_seq_length', />= 1/],
  ])('%j is refused at %s', (config, key, expected) => {
    const problems = sparsityProblems(config as unknown as SparsityConfig);
    expect(problems.map((problem) => problem.key)).toEqual([key]);
    expect(problems[0]!.expected).toMatch(expected);
    expect(problems[0]!.hint.length).toBeGreaterThan(5);
    expect(() => resolveSparsity(config as unknown as SparsityConfig)).toThrow(`sparse_attention.${key}`);
  });

  it('are refused with the lengths they do not fit', () => {
    const layout = (config: SparsityConfig, sequenceLength: number) => () =>
      sparseLayout(config, { heads: 2, sequenceLength });
    expect(layout({ mode: 'dense' }, 40)).toThrow(/multiple of 16.*got 40 tokens/s);
    expect(layout({ mode: 'bigbird', num_random_blocks: 5 }, 64)).toThrow(/num_random_blocks 5 blocks.*got 4/s);
    expect(layout({ mode: 'dense', max_seq_length: 64 }, 80)).toThrow(/at most max_seq_length 64.*got 80/s);
    expect(layout({ mode: 'dense', max_seq_length: 70 }, 64)).toThrow(/multiple of 16.*got 70 tokens/s);
  });

  it('are allowed when empty', () => {
    expect(sparseLayout({ mode: 'fixed' }, { heads: 2, sequenceLength: 0 })).toEqual({
      block: 16,
      blocks: 0,
      layouts: [new Uint8Array(0)],
      headLayout: [0, 0],
    });
  });
});
