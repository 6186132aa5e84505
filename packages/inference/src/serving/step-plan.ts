/** One step in the making: which texts take part with how many tokens, within the limits of a step. */
import { DsError } from '@ds/core-native';
import type { StepBatch, StepResult } from '../decoder/step-runner';
import type { NextToken } from '../generation/decoder';
import type { Answer } from './request';

/** A text's part in a step. */
export interface StepEntry {
  readonly answer: Answer;
  /** Known tokens that go through the model, from answer.computed on. */
  readonly count: number;
  /** Guessed tokens behind them. */
  readonly drafts: readonly number[];
  /** Rows, counted from the entry's first, whose next token is asked for. */
  readonly rows: readonly number[];
}

export interface StepLimits {
  /** Tokens of a step. */
  readonly stepTokens: number;
  /** Rows of logits in a step beyond one for each text. */
  readonly spareLogitRows: number;
}

export class StepPlan {
  readonly #entries = new Map<Answer, StepEntry>();
  #tokensLeft: number;
  #spareRows: number;

  constructor({ stepTokens, spareLogitRows }: StepLimits) {
    this.#tokensLeft = stepTokens;
    this.#spareRows = spareLogitRows;
  }

  get entries(): StepEntry[] {
    return [...this.#entries.values()];
  }

  get tokensLeft(): number {
    return this.#tokensLeft;
  }

  /** How many of an answer's next tokens there is room for, at most `most`. */
  room(answer: Answer, most: number): number {
    const count = Math.min(answer.left, this.#tokensLeft, most);
    if (scoredRows(answer, count).length <= this.#spareRows) return count;
    return Math.max(0, answer.request.promptLogprobs.length - answer.computed) + this.#spareRows;
  }

  add(answer: Answer, count: number): void {
    const scored = scoredRows(answer, count);
    const rows = count === answer.left ? [...scored, count - 1] : scored;
    this.#entries.set(answer, { answer, count, drafts: [], rows });
    this.#tokensLeft -= count;
    this.#spareRows -= scored.length;
  }

  /** Adds guesses of an answer that takes part with its last token, at most `most`; returns how many there was room for. */
  addDrafts(answer: Answer, most: number): number {
    const entry = this.#entries.get(answer);
    const count = Math.min(most, answer.drafts.length, this.#tokensLeft, this.#spareRows);
    if (!entry || count < 1) return 0;
    const drafts = answer.drafts.slice(0, count);
    this.#entries.set(answer, { ...entry, drafts, rows: [...entry.rows, ...drafts.map((_, i) => entry.count + i)] });
    this.#tokensLeft -= count;
    this.#spareRows -= count;
    return count;
  }

  /** Takes an answer out again, before drafts are added. */
  remove(answer: Answer): void {
    const entry = this.#entries.get(answer);
    if (!entry) return;
    this.#entries.delete(answer);
    this.#tokensLeft += entry.count;
    this.#spareRows += scoredRows(answer, entry.count).length;
  }
}

/** Rows of the next `count` tokens that say how likely tokens of the prompt were, as far as nobody knows yet. */
function scoredRows(answer: Answer, count: number): number[] {
  if (!answer.scoresPrompt) return [];
  const { promptIds, promptLogprobs } = answer.request;
  const from = Math.max(answer.computed, promptLogprobs.length);
  const to = Math.min(answer.computed + count, promptIds.length - 1);
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i - answer.computed);
}

/** Writes entries down as the runner takes them. */
export function stepBatch(entries: readonly StepEntry[], pageTokens: number): StepBatch {
  const needsLogits = entries.some(
    ({ answer, rows }) => rows.length > 0 && (answer.needsLogits || answer.scoresPrompt),
  );
  const parts = entries.map(({ answer: { tokens, computed, pages }, count, drafts, rows }) => {
    const ids = tokens.slice(computed, computed + count);
    return { ids: drafts.length > 0 ? [...ids, ...drafts] : ids, past: computed, pages, rows };
  });
  return batchOf(parts, needsLogits ? 'logits' : 'argmax', pageTokens);
}

/** New tokens of one text. */
export interface BatchPart {
  readonly ids: readonly number[];
  readonly past: number;
  /** Enough for its tokens, or more. */
  readonly pages: readonly number[];
  /** Counted from its first. */
  readonly rows: readonly number[];
}

export function batchOf(parts: readonly BatchPart[], want: StepBatch['want'], pageTokens: number): StepBatch {
  const starts = new Int32Array(parts.length + 1);
  for (const [s, part] of parts.entries()) starts[s + 1] = starts[s]! + part.ids.length;
  const ids = new Int32Array(starts.at(-1)!);
  const past = new Int32Array(parts.length);
  const pages: Int32Array[] = [];
  const logitRows: number[] = [];
  for (const [s, part] of parts.entries()) {
    ids.set(part.ids, starts[s]!);
    past[s] = part.past;
    // From an array: `Int32Array.from` would walk it by an iterator, for every text in every step.
    pages.push(new Int32Array(part.pages.slice(0, Math.ceil((part.past + part.ids.length) / pageTokens))));
    for (const row of part.rows) logitRows.push(starts[s]! + row);
  }
  return { ids, starts, past, pages, logitRows: new Int32Array(logitRows), want };
}

/** Gives row after row of what a step said. @throws INTERNAL where it said less than was asked */
export function nextTokens(
  { argmax, logits }: StepResult,
  rows: number,
  vocabSize: number,
): (row: number) => NextToken {
  const got = logits ? logits.length / vocabSize : (argmax?.length ?? 0);
  if (got !== rows)
    throw new DsError({ code: 'INTERNAL', op: 'step', expected: `${rows} rows of a step`, actual: `${got}` });
  if (!logits) return (row) => ({ id: argmax![row]! });
  return (row) => ({ logits: logits.subarray(row * vocabSize, (row + 1) * vocabSize) });
}
