/**
 * Which blocks of keys a block of queries sees, as DeepSpeed's `sparse_attention` section says it: the same keys, the same
 * defaults. Two keys are ours: `seed`, because DeepSpeed draws random blocks from Python's global generator, and
 * `max_seq_length`, because DeepSpeed always cuts its layouts out of one for 2048 tokens.
 *
 * Source: Child et al. 2019 (fixed), Zaheer et al. 2020 (bigbird), Beltagy et al. 2020 (bslongformer).
 */
import { DsError, blockSizes as sparseBlockSizes } from '@ds/core-native';

export { sparseBlockSizes };

export type SparseDirection = 'bidirectional' | 'unidirectional';

const shared = {
  block: 16,
  different_layout_per_head: false,
  /** Of the random blocks; every head has numbers of its own. */
  seed: 0,
  /** Build the layout for so many tokens and cut it to the sequence. Default: build it for the sequence. */
  max_seq_length: null as number | null,
};

const { different_layout_per_head: _, ...sharedByAll } = shared;
const bidirectional = 'bidirectional' as SparseDirection;
const noEnds = null as readonly number[] | null;

/** The keys of each mode with their defaults. */
export const sparsityDefaults = {
  dense: shared,
  fixed: {
    ...shared,
    num_local_blocks: 4,
    num_global_blocks: 1,
    attention: bidirectional,
    horizontal_global_attention: false,
    num_different_global_patterns: 1,
  },
  variable: {
    ...shared,
    num_random_blocks: 0,
    local_window_blocks: [4] as readonly number[],
    global_block_indices: [0] as readonly number[],
    global_block_end_indices: noEnds,
    attention: bidirectional,
    horizontal_global_attention: false,
  },
  bigbird: {
    ...shared,
    num_random_blocks: 1,
    num_sliding_window_blocks: 3,
    num_global_blocks: 1,
    attention: bidirectional,
  },
  bslongformer: {
    ...shared,
    num_sliding_window_blocks: 3,
    global_block_indices: [0] as readonly number[],
    global_block_end_indices: noEnds,
    attention: bidirectional,
  },
  // Every head has the same window.
  local_sliding_window: {
    ...sharedByAll,
    num_sliding_window_blocks: 3,
    attention: 'unidirectional' as SparseDirection,
  },
};

type Defaults = typeof sparsityDefaults;
export type SparsityMode = keyof Defaults;
export const sparsityModes = Object.keys(sparsityDefaults) as SparsityMode[];

/** A pattern as a person writes it; what is absent has its default. */
export type SparsityConfig = {
  [M in SparsityMode]: { readonly mode: M } & Readonly<Partial<Defaults[M]>>;
}[SparsityMode];

/** A pattern with every key. */
export type ResolvedSparsity = { [M in SparsityMode]: { readonly mode: M } & Readonly<Defaults[M]> }[SparsityMode];

export type ResolvedOf<M extends SparsityMode> = Extract<ResolvedSparsity, { mode: M }>;

/** What is wrong with one key. */
export interface SparsityProblem {
  readonly key: string;
  readonly expected: string;
  readonly actual: string;
  readonly hint: string;
}

const counts: Readonly<Record<string, number>> = {
  num_local_blocks: 1,
  num_global_blocks: 0,
  num_different_global_patterns: 1,
  num_random_blocks: 0,
  num_sliding_window_blocks: 1,
  seed: 0,
};

/**
 * Finds everything that is wrong in a pattern, whatever the number of heads and the length: types, ranges, and what
 * DeepSpeed's classes refuse.
 */
export function sparsityProblems(config: SparsityConfig): SparsityProblem[] {
  const defaults: Readonly<Record<string, unknown>> | undefined = sparsityDefaults[config.mode];
  if (!defaults)
    return [
      {
        key: 'mode',
        expected: sparsityModes.map((mode) => JSON.stringify(mode)).join(' or '),
        actual: JSON.stringify(config.mode) ?? 'nothing',
        hint: 'choose one of the patterns',
      },
    ];
  const given = Object.entries(config).filter(([key, value]) => key !== 'mode' && value !== undefined);
  const problems = given.flatMap(([key, value]) => {
    const expected = key in defaults ? expectedValue(key, value) : `a key of mode ${JSON.stringify(config.mode)}`;
    const hint =
      key in defaults ? 'correct the value or remove the key' : `its keys: ${Object.keys(defaults).join(', ')}`;
    return expected === undefined ? [] : [{ key, expected, actual: key in defaults ? show(value) : key, hint }];
  });
  return problems.length > 0 ? problems : conflictsOf({ ...defaults, ...config } as ResolvedSparsity);
}

/** What a key takes, if `value` is not of it. */
function expectedValue(key: string, value: unknown): string | undefined {
  const isWhole = (x: unknown, least: number) => Number.isSafeInteger(x) && (x as number) >= least;
  const areWhole = (x: unknown, least: number) => Array.isArray(x) && x.every((item) => isWhole(item, least));
  const least = counts[key];
  if (least !== undefined) return isWhole(value, least) ? undefined : `a whole number >= ${least}`;
  switch (key) {
    case 'block':
      return sparseBlockSizes.some((size) => size === value) ? undefined : `one of ${sparseBlockSizes.join(', ')}`;
    case 'max_seq_length':
      return value === null || isWhole(value, 1) ? undefined : 'a whole number >= 1, or null';
    case 'attention':
      return value === 'bidirectional' || value === 'unidirectional'
        ? undefined
        : '"bidirectional" or "unidirectional"';
    case 'local_window_blocks':
      return areWhole(value, 1) && (value as unknown[]).length > 0 ? undefined : 'a list of whole numbers >= 1';
    case 'global_block_indices':
      return areWhole(value, 0) ? undefined : 'a list of whole numbers >= 0';
    case 'global_block_end_indices':
      return value === null || areWhole(value, 1) ? undefined : 'a list of whole numbers >= 1, or null';
    default:
      return typeof value === 'boolean' ? undefined : 'true or false';
  }
}

/** What each value allows alone, but not together. */
function conflictsOf(config: ResolvedSparsity): SparsityProblem[] {
  const problems: SparsityProblem[] = [];
  const refuse = (key: string, expected: string, actual: string, hint: string) =>
    problems.push({ key, expected, actual, hint });
  if (config.mode === 'fixed') {
    const { num_local_blocks: local, num_global_blocks: global, num_different_global_patterns: patterns } = config;
    if (global < 1)
      refuse('num_global_blocks', 'a whole number >= 1', String(global), 'every window has a global block');
    else if (local % global !== 0)
      refuse(
        'num_local_blocks',
        `a multiple of num_global_blocks ${global}`,
        String(local),
        'global blocks tile a window',
      );
    if (patterns > 1 && !config.different_layout_per_head)
      refuse(
        'num_different_global_patterns',
        '1 where all heads have one layout',
        String(patterns),
        'set different_layout_per_head to true',
      );
    if (local % global === 0 && patterns > local / global)
      refuse(
        'num_different_global_patterns',
        `at most num_local_blocks / num_global_blocks = ${local / global}`,
        String(patterns),
        'a window has no more places for global blocks',
      );
  }
  if ((config.mode === 'fixed' || config.mode === 'variable') && config.horizontal_global_attention)
    if (config.attention === 'unidirectional')
      refuse(
        'horizontal_global_attention',
        'false with unidirectional attention',
        'true',
        'a global row would see all that follows it',
      );
  if (config.mode === 'variable' || config.mode === 'bslongformer') {
    const { global_block_indices: starts, global_block_end_indices: ends } = config;
    if (ends !== null && ends.length !== starts.length)
      refuse(
        'global_block_end_indices',
        `${starts.length} ends, one for each of global_block_indices`,
        String(ends.length),
        'write one end behind every start, or none at all',
      );
    else if (ends?.some((end, i) => end <= starts[i]!))
      refuse('global_block_end_indices', 'ends behind their starts', show(ends), 'an end is the first block not meant');
  }
  return problems;
}

/** Fills in the defaults. @throws CONFIG for what `sparsityProblems` finds */
export function resolveSparsity(config: SparsityConfig): ResolvedSparsity {
  const [problem] = sparsityProblems(config);
  if (problem) {
    const { key, expected, actual, hint } = problem;
    throw new DsError({ code: 'CONFIG', op: `sparse_attention.${key}`, expected, actual, hint });
  }
  const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
  return { ...sparsityDefaults[config.mode], ...given } as ResolvedSparsity;
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}
