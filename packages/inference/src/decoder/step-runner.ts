/** What serving asks of a model: one step of many texts at once, keys and values in pages. Everything here is built on it. */

/** New tokens of S texts, R in all, one text behind the other without padding. */
export interface StepBatch {
  /** [R] */
  readonly ids: Int32Array;
  /** [S + 1]; text s owns rows starts[s] to starts[s + 1] - 1, at least one. */
  readonly starts: Int32Array;
  /** [S]; tokens of the text before its rows, whose keys and values its pages hold. */
  readonly past: Int32Array;
  /** Of each text, in order; enough for its past and its rows. Text s writes at positions past[s] and on. */
  readonly pages: readonly Int32Array[];
  /** [L]; rows whose next token is asked for, rising. Empty where every text is in the middle of its prompt. */
  readonly logitRows: Int32Array;
  /** Whether the most likely token of those rows is enough, of equals the lowest id. */
  readonly want: 'argmax' | 'logits';
}

export interface StepResult {
  /** [L], for 'argmax'. */
  readonly argmax?: Int32Array | undefined;
  /** [L, V], for 'logits'; whoever asked for it is done with it before the next step. */
  readonly logits?: Float32Array | undefined;
}

/**
 * A model with pages. A step is idempotent: it reads what lies before a text's rows and writes what belongs there, so that
 * it may be done again, in parts too. What a row gives depends on its own text alone, bit for bit where the runner says
 * so; then answers depend on nothing that is decided here.
 */
export interface StepRunner extends Disposable {
  /** Tokens of a page. */
  readonly pageTokens: number;
  /** How many pages there are; their numbers are 0 to pages - 1. */
  readonly pages: number;
  /** Bytes of a page, all layers together. */
  readonly pageBytes?: number;
  readonly vocabSize: number;
  step(batch: StepBatch): Promise<StepResult>;
}
