/** What serving knows of a model: tokens of many sequences go in, and what comes next comes out. */

export interface StepBatch {
  /** [R]: the new tokens, sequence after sequence. */
  readonly ids: Int32Array;
  /** [S + 1]: sequence s owns rows starts[s] .. starts[s + 1] - 1. */
  readonly starts: Int32Array;
  /** [S]: tokens of each sequence that its pages hold already. */
  readonly past: Int32Array;
  /** Of each sequence, its pages in the order of its tokens, those of the new ones included. */
  readonly pages: readonly Int32Array[];
  /** [L]: the rows behind which somebody wants to know what comes. */
  readonly logitRows: Int32Array;
  readonly want: 'argmax' | 'logits';
}

export interface StepResult {
  /** [L], with `want: 'argmax'`: the most likely token, the lower id of equals */
  readonly argmax?: Int32Array;
  /** [L, V], with `want: 'logits'` */
  readonly logits?: Float32Array;
}

/** A model with pages for keys and values. */
export interface StepRunner extends Disposable {
  /** Tokens of a page. */
  readonly pageTokens: number;
  /** Pages that there are, numbered from 0. */
  readonly pages: number;
  readonly vocabSize: number;
  /** Sends the new tokens through the model and writes their keys and values into their pages. One call at a time. */
  step(batch: StepBatch): Promise<StepResult>;
}
