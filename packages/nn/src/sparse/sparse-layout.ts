/**
 * The block layouts of DeepSpeed's sparsity classes, bit for bit.
 *
 * A layout says what a block of queries may see at all. It is not causal by itself: in unidirectional mode the diagonal block,
 * and in `fixed` and `variable` global columns wider than one block, hold tokens of the future, which the causal mask of the
 * op hides.
 */
import { DsError } from '@ds/core-native';
import { RandomBlocks } from './random-blocks';
import { type ResolvedOf, type ResolvedSparsity, resolveSparsity, type SparsityConfig } from './sparsity-config';

export interface SparseLayout {
  /** Tokens of a block. */
  readonly block: number;
  /** N, blocks of the sequence. */
  readonly blocks: number;
  /** The distinct layouts: N rows of N bytes, 1 where the row's queries see the column's keys. */
  readonly layouts: readonly Uint8Array[];
  /** Which of them each head has. */
  readonly headLayout: readonly number[];
}

/** Blocks that see or are seen, in one head. */
class Grid {
  readonly cells: Uint8Array;

  constructor(readonly N: number) {
    this.cells = new Uint8Array(N * N);
  }

  /** Marks columns from .. to - 1 of a row. */
  row(row: number, from: number, to: number): void {
    this.cells.fill(1, row * this.N + from, row * this.N + Math.max(from, to));
  }

  /** Marks columns from .. to - 1 of every row from `firstRow` on. */
  columns(from: number, to: number, firstRow: number): void {
    for (let row = firstRow; row < this.N; row++) this.row(row, from, to);
  }

  rows(from: number, to: number): void {
    for (let row = from; row < to; row++) this.row(row, 0, this.N);
  }

  cell(row: number, column: number): void {
    this.cells[row * this.N + column] = 1;
  }

  /** Keeps the blocks on and below the diagonal. */
  lowerTriangle(): void {
    for (let row = 0; row < this.N; row++) this.cells.fill(0, row * this.N + row + 1, (row + 1) * this.N);
  }

  crop(n: number): Uint8Array {
    if (n === this.N) return this.cells;
    const cropped = new Uint8Array(n * n);
    for (let row = 0; row < n; row++) cropped.set(this.cells.subarray(row * this.N, row * this.N + n), row * n);
    return cropped;
  }
}

/**
 * Builds the layout of every head.
 *
 * @throws CONFIG for a pattern that cannot be; SHAPE for a sequence that is no multiple of the block, is longer than
 *   `max_seq_length`, or has fewer blocks than the pattern needs
 */
export function sparseLayout(config: SparsityConfig, size: { heads: number; sequenceLength: number }): SparseLayout {
  const sparsity = resolveSparsity(config);
  const { block } = sparsity;
  const built = sparsity.max_seq_length ?? size.sequenceLength;
  const n = expectBlocks(size.sequenceLength, block);
  const N = expectBlocks(built, block);
  if (n > N)
    throw refusal(`a sequence of at most max_seq_length ${built}`, `${size.sequenceLength}`, 'raise max_seq_length');
  expectEnoughBlocks(sparsity, N);
  const perHead = 'different_layout_per_head' in sparsity && sparsity.different_layout_per_head;
  const layouts: Uint8Array[] = [];
  const known = new Map<string, number>();
  const headLayout: number[] = [];
  for (let head = 0; head < (perHead ? size.heads : 1); head++) {
    const grid = new Grid(N);
    if (N > 0) fill(grid, sparsity, head);
    const cells = grid.crop(n);
    const key = Buffer.from(cells.buffer, cells.byteOffset, cells.byteLength).toString('latin1');
    if (!known.has(key)) known.set(key, layouts.push(cells) - 1);
    headLayout.push(known.get(key)!);
  }
  while (headLayout.length < size.heads) headLayout.push(headLayout[0]!);
  return { block, blocks: n, layouts, headLayout };
}

function refusal(expected: string, actual: string, hint: string): DsError {
  return new DsError({ code: 'SHAPE', op: 'sparse_attention', expected, actual, hint });
}

function expectBlocks(tokens: number, block: number): number {
  if (Number.isInteger(tokens) && tokens >= 0 && tokens % block === 0) return tokens / block;
  throw refusal(
    `a sequence of whole blocks, a multiple of ${block}`,
    `${tokens} tokens`,
    'pad the batch with padToBlockSize(), or choose another sequence length or block',
  );
}

/** What a pattern needs at least; DeepSpeed refuses the same. */
function expectEnoughBlocks(sparsity: ResolvedSparsity, N: number): void {
  for (const key of ['num_random_blocks', 'num_sliding_window_blocks', 'num_global_blocks'] as const) {
    // A short fixed layout keeps what fits of its global blocks.
    if (!(key in sparsity) || sparsity.mode === 'fixed') continue;
    const wanted = (sparsity as unknown as Record<string, number>)[key]!;
    if (wanted > N) throw refusal(`at least ${key} ${wanted} blocks`, `${N}`, `lower ${key}, or use longer sequences`);
  }
}

function fill(grid: Grid, sparsity: ResolvedSparsity, head: number): void {
  if (sparsity.mode === 'dense') grid.rows(0, grid.N);
  if (sparsity.mode === 'fixed') fixed(grid, sparsity, head);
  if (sparsity.mode === 'variable') variable(grid, sparsity, head);
  if (sparsity.mode === 'bigbird') bigBird(grid, sparsity, head);
  if (sparsity.mode === 'bslongformer') longformer(grid, sparsity);
  if (sparsity.mode === 'local_sliding_window') slidingWindow(grid, sparsity, sparsity.attention === 'unidirectional');
}

function fixed(grid: Grid, sparsity: ResolvedOf<'fixed'>, head: number): void {
  const { num_local_blocks: local, num_global_blocks: global, horizontal_global_attention: horizontal } = sparsity;
  const { N } = grid;
  const forward = sparsity.attention === 'unidirectional';
  for (let start = 0; start < N; start += local) window(grid, start, Math.min(start + local, N), forward);

  const globalAt = (start: number, end: number) => {
    grid.columns(start, end, forward ? start : 0);
    if (horizontal) grid.rows(start, end);
  };
  // Patterns take their global blocks from the end of a window backwards.
  const first = local - (1 + (head % sparsity.num_different_global_patterns)) * global;
  const whole = N - (N % local);
  for (let start = first; start < whole; start += local) globalAt(start, start + global);
  if (whole < N) {
    const start = Math.min(whole + first, N - global);
    // In a sequence shorter than its global blocks the start is negative, and counts from the end as in Python's slices.
    globalAt(start < 0 ? Math.max(0, start + N) : start, start + global);
  }
}

/** A window of queries that see each other. */
function window(grid: Grid, start: number, end: number, forward: boolean): void {
  for (let row = start; row < end; row++) grid.row(row, start, forward ? row + 1 : end);
}

function variable(grid: Grid, sparsity: ResolvedOf<'variable'>, head: number): void {
  const { N } = grid;
  const forward = sparsity.attention === 'unidirectional';
  const { local_window_blocks: windows, horizontal_global_attention: horizontal } = sparsity;
  randomBlocks(grid, sparsity, head, () => N);
  for (let start = 0, i = 0; start < N; i++) {
    const end = Math.min(N, start + windows[Math.min(i, windows.length - 1)]!);
    window(grid, start, end, forward);
    start = end;
  }
  for (const [start, end] of globalRanges(sparsity, N)) {
    grid.columns(start, end, forward ? start : 0);
    if (horizontal) grid.rows(start, end);
  }
}

function bigBird(grid: Grid, sparsity: ResolvedOf<'bigbird'>, head: number): void {
  const { N } = grid;
  const forward = sparsity.attention === 'unidirectional';
  // In the first rows of unidirectional mode there are fewer columns than random blocks; DeepSpeed fails there.
  randomBlocks(grid, sparsity, head, (row) => (forward ? row + 1 : N));
  slidingWindow(grid, sparsity, false);
  grid.rows(0, sparsity.num_global_blocks);
  grid.columns(0, sparsity.num_global_blocks, 0);
  if (forward) grid.lowerTriangle();
}

function longformer(grid: Grid, sparsity: ResolvedOf<'bslongformer'>): void {
  slidingWindow(grid, sparsity, false);
  for (const [start, end] of globalRanges(sparsity, grid.N)) {
    grid.rows(start, end);
    grid.columns(start, end, 0);
  }
  if (sparsity.attention === 'unidirectional') grid.lowerTriangle();
}

/** An even window acts as the next odd one. */
function slidingWindow(grid: Grid, sparsity: { num_sliding_window_blocks: number }, forward: boolean): void {
  const reach = Math.floor(sparsity.num_sliding_window_blocks / 2);
  for (let row = 0; row < grid.N; row++)
    grid.row(row, Math.max(0, row - reach), forward ? row + 1 : Math.min(grid.N, row + reach + 1));
}

function randomBlocks(
  grid: Grid,
  { num_random_blocks: count, seed }: { num_random_blocks: number; seed: number },
  head: number,
  below: (row: number) => number,
): void {
  if (count === 0) return;
  const random = new RandomBlocks(seed, head);
  for (let row = 0; row < grid.N; row++)
    for (const column of random.sample(Math.min(count, below(row)), below(row))) grid.cell(row, column);
}

/** Global blocks as ranges; those beyond the sequence are ignored, as in DeepSpeed. */
function globalRanges(
  { global_block_indices: starts, global_block_end_indices: ends }: ResolvedOf<'variable' | 'bslongformer'>,
  N: number,
): [number, number][] {
  const ranges = starts.map((start, i): [number, number] => [start, Math.min(N, ends ? ends[i]! : start + 1)]);
  return ranges.filter(([start]) => start < N);
}
