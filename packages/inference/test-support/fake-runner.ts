/**
 * A model for tests of serving: what comes next is a hash of the tokens of a text, as they are read back from the pages
 * that the text names. A wrong page, a wrong past or a wrong row gives another answer.
 */
import type { StepBatch, StepResult, StepRunner } from '../src/decoder/step-runner';

export interface FakeRunnerOptions {
  pageTokens?: number;
  pages?: number;
  vocabSize?: number;
  /** Tokens that the next one depends on; default all. */
  window?: number;
  /** Largest logit; the smallest is 0. Default 6. */
  sharpness?: number;
  /** Puts this token next, in place of what the hash says: its logit is 50, all others are 0. */
  next?: (tokens: readonly number[]) => number;
  /** Called with each batch, before it is computed; may throw. */
  onStep?: (batch: StepBatch) => void | Promise<void>;
}

const START = 0x9e3779b9;

export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ (b + START + (a << 6) + (a >>> 2)), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35);
  return (h ^ (h >>> 13)) >>> 0;
}

/** Whole numbers by counter, so that a failure can be repeated. */
export function dice(seed: number): (below: number) => number {
  let i = 0;
  return (below) => Math.floor((mix(mix(seed, i++), 7) / 2 ** 32) * below);
}

export class FakeRunner implements StepRunner {
  readonly pageTokens: number;
  readonly pages: number;
  readonly pageBytes: number;
  readonly vocabSize: number;
  steps = 0;
  mostTokens = 0;
  mostTexts = 0;
  mostLogitRows = 0;
  readonly wants = { argmax: 0, logits: 0 };
  disposed = false;
  readonly #options: FakeRunnerOptions;
  /** Of each place: the token, and a hash over the text up to it, as keys and values are. */
  readonly #ids: Int32Array;
  readonly #words: Uint32Array;

  constructor(options: FakeRunnerOptions = {}) {
    this.#options = options;
    this.pageTokens = options.pageTokens ?? 16;
    this.pages = options.pages ?? 4096;
    this.pageBytes = this.pageTokens * 8;
    this.vocabSize = options.vocabSize ?? 61;
    this.#ids = new Int32Array(this.pages * this.pageTokens).fill(-1);
    this.#words = new Uint32Array(this.pages * this.pageTokens);
  }

  async step(batch: StepBatch): Promise<StepResult> {
    await this.#options.onStep?.(batch);
    this.#check(batch);
    this.steps++;
    const { starts, logitRows, want } = batch;
    this.mostTokens = Math.max(this.mostTokens, batch.ids.length);
    this.mostTexts = Math.max(this.mostTexts, batch.past.length);
    this.mostLogitRows = Math.max(this.mostLogitRows, logitRows.length);
    this.wants[want]++;
    for (let s = 0; s < batch.past.length; s++) this.#write(batch, s);
    const logits = new Float32Array(logitRows.length * this.vocabSize);
    for (const [i, row] of logitRows.entries()) {
      const s = starts.findIndex((start) => start > row) - 1;
      const tokens = batch.past[s]! + row - starts[s]! + 1;
      logits.set(this.#logits(batch.pages[s]!, tokens), i * this.vocabSize);
    }
    if (want === 'logits') return { logits };
    return { argmax: Int32Array.from(logitRows, (_, i) => this.#largest(logits, i)) };
  }

  [Symbol.dispose](): void {
    this.disposed = true;
  }

  /** The logits behind a text, without pages: what a test expects. */
  logitsAfter(tokens: readonly number[]): Float32Array {
    let word = START;
    const words = tokens.map((id, position) => {
      word = mix(mix(word, id), position);
      return word;
    });
    return this.#logitsOf(tokens, words);
  }

  #place(pages: Int32Array, position: number): number {
    return pages[Math.floor(position / this.pageTokens)]! * this.pageTokens + (position % this.pageTokens);
  }

  #write({ ids, starts, past, pages }: StepBatch, s: number): void {
    for (let row = starts[s]!; row < starts[s + 1]!; row++) {
      const position = past[s]! + row - starts[s]!;
      const before = position === 0 ? START : this.#words[this.#place(pages[s]!, position - 1)]!;
      const place = this.#place(pages[s]!, position);
      this.#ids[place] = ids[row]!;
      this.#words[place] = mix(mix(before, ids[row]!), position);
    }
  }

  #logits(pages: Int32Array, count: number): Float32Array {
    const from = Math.max(0, count - (this.#options.window ?? count));
    const places = Array.from({ length: count - from }, (_, i) => this.#place(pages, from + i));
    return this.#logitsOf(
      places.map((place) => this.#ids[place]!),
      places.map((place) => this.#words[place]!),
    );
  }

  #logitsOf(ids: readonly number[], words: readonly number[]): Float32Array {
    const { window, sharpness = 6, next } = this.#options;
    if (next) return new Float32Array(this.vocabSize).fill(50, next(ids), next(ids) + 1);
    const state = (window === undefined ? words : ids.slice(-window)).reduce(mix, 1);
    return Float32Array.from({ length: this.vocabSize }, (_, v) => (mix(state, v) / 2 ** 32) * sharpness);
  }

  #largest(logits: Float32Array, row: number): number {
    const first = row * this.vocabSize;
    let best = first;
    for (let i = first + 1; i < first + this.vocabSize; i++) if (logits[i]! > logits[best]!) best = i;
    return best - first;
  }

  /** Refuses what no engine may ask: rows out of order, pages missing, two texts that write the same place. */
  #check({ ids, starts, past, pages, logitRows }: StepBatch): void {
    const wrong = (what: string): never => {
      throw new Error(`a wrong batch: ${what}`);
    };
    if (past.length === 0 || starts.length !== past.length + 1 || pages.length !== past.length) wrong('sizes');
    if (starts[0] !== 0 || starts.at(-1) !== ids.length) wrong('starts');
    if (ids.some((id) => id < 0 || id >= this.vocabSize)) wrong('ids');
    if (logitRows.some((row, i) => row >= ids.length || row <= (logitRows[i - 1] ?? -1))) wrong('logitRows');
    const written = new Set<number>();
    for (const [s, own] of pages.entries()) {
      const end = past[s]! + starts[s + 1]! - starts[s]!;
      if (starts[s + 1]! <= starts[s]!) wrong('an empty text');
      if (own.length !== Math.ceil(end / this.pageTokens)) wrong('number of pages');
      if (own.some((page) => page < 0 || page >= this.pages)) wrong('page');
      for (let position = past[s]!; position < end; position++) {
        const place = this.#place(own, position);
        if (written.has(place)) wrong('a place written twice');
        written.add(place);
      }
    }
  }
}
