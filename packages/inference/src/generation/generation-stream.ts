/** One generation as a stream of tokens, with shortcuts for those who want all of it. */
import type { GenerationTimes } from './generate';
import type { FinishReason, GeneratedToken, Sequence } from './sequence';

export interface GenerationResult {
  readonly promptIds: readonly number[];
  /** The new tokens; an end-of-text token that ended the text is the last of them. */
  readonly ids: readonly number[];
  /** What they spell, special tokens left out, up to a stop text. '' without a tokenizer. */
  readonly text: string;
  readonly finishReason: FinishReason;
  /** With this seed the draw comes out the same again. Undefined: greedy. */
  readonly seed: number | undefined;
  /** Computing time until the first token, of the whole batch. */
  readonly promptSeconds: number;
  /** Computing time in all, of the whole batch. */
  readonly seconds: number;
  /** New tokens a second behind the first one, of this text alone; of a single token, 1 / seconds. */
  readonly tokensPerSecond: number;
}

/**
 * Tokens as they come: `for await (const { text } of stream)`. Nothing is computed before somebody asks, and no further
 * ahead than one token; leaving the loop frees the memory. It can be walked once.
 */
export class GenerationStream implements AsyncIterable<GeneratedToken>, AsyncDisposable {
  readonly #tokens: AsyncGenerator<GeneratedToken, void, undefined>;
  readonly #result: () => GenerationResult;

  /** @internal */
  constructor(tokens: AsyncGenerator<GeneratedToken, void, undefined>, result: () => GenerationResult) {
    this.#tokens = tokens;
    this.#result = result;
  }

  [Symbol.asyncIterator](): AsyncGenerator<GeneratedToken, void, undefined> {
    return this.#tokens;
  }

  /** Generates what is left and gives the whole of it. */
  async final(): Promise<GenerationResult> {
    for await (const _ of this.#tokens);
    return this.#result();
  }

  /** Generates what is left and gives the whole new text. */
  async text(): Promise<string> {
    return (await this.final()).text;
  }

  /** Ends the generation where it is and frees its memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tokens.return();
  }
}

/** Sums a generation up. */
export function resultOf(sequence: Sequence, { promptSeconds, seconds }: GenerationTimes): GenerationResult {
  const { promptIds, ids, text, seed, finishReason = 'closed' } = sequence;
  const tokensPerSecond = ids.length > 1 ? (ids.length - 1) / (seconds - promptSeconds) : ids.length / seconds;
  return { promptIds, ids, text, finishReason, seed, promptSeconds, seconds, tokensPerSecond };
}
