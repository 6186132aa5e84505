/** One request's tokens as they come, and all of it at the end. */
import type { TokenLogprob } from '../generation/logprobs';
import type { FinishReason } from '../generation/sequence';
import type { Request, TokenEvent } from './request';

export interface ServedAnswer {
  readonly index: number;
  /** The new tokens; one that ended the text is the last of them. */
  readonly ids: readonly number[];
  /** What they spell, special tokens left out, up to a stop text; behind the prompt where the request echoes it. */
  readonly text: string;
  readonly finishReason: FinishReason;
  /** With this seed the draw comes out the same again. Undefined: greedy. */
  readonly seed: number | undefined;
  /** Of each new token, where the request asked for them. */
  readonly logprobs: readonly TokenLogprob[] | undefined;
}

export interface ServedResult {
  readonly promptIds: readonly number[];
  /** Of the prompt's second token and on, where the request asked for them. */
  readonly promptLogprobs: readonly TokenLogprob[] | undefined;
  readonly answers: readonly ServedAnswer[];
  /** Tokens of the prompt that were not computed, because another request had been. */
  readonly cachedTokens: number;
  /** From the request's arrival to its first token; undefined when there was none. */
  readonly firstTokenMs: number | undefined;
  /** From the request's arrival to its end. */
  readonly totalMs: number;
}

/**
 * `for await (const { index, text } of stream)`. It can be walked once; leaving the loop ends the request and frees its
 * pages. Tokens that nobody takes wait here: no more than the request may write.
 */
export class AnswerStream implements AsyncIterable<TokenEvent>, AsyncDisposable {
  readonly #request: Request;
  readonly #close: () => void;
  readonly #final: Promise<ServedResult>;
  #resolve!: (result: ServedResult) => void;
  #reject!: (error: unknown) => void;
  #events: TokenEvent[] = [];
  #ended = false;
  #wake: (() => void) | undefined;
  #firstTokenMs: number | undefined;
  readonly #tokens: AsyncGenerator<TokenEvent, void, undefined>;

  /** @internal */
  constructor(request: Request, close: () => void) {
    this.#request = request;
    this.#close = close;
    this.#final = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever walks the stream gets the error there.
    this.#final.catch(() => {});
    this.#tokens = this.#walk();
  }

  /** Waits for the end, and gives the whole of it. @throws what ended the request */
  final(): Promise<ServedResult> {
    return this.#final;
  }

  [Symbol.asyncIterator](): AsyncGenerator<TokenEvent, void, undefined> {
    return this.#tokens;
  }

  /** Ends the request where it is and frees its pages. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }

  /** @internal */
  push(events: readonly TokenEvent[]): void {
    if (events.length > 0) this.#firstTokenMs ??= performance.now() - this.#request.arrivedMs;
    for (const event of events) this.#events.push(event);
    this.#wake?.();
  }

  /** @internal */
  end(failure?: { readonly error: unknown }): void {
    if (this.#ended) return;
    this.#ended = true;
    if (failure) this.#reject(failure.error);
    else this.#resolve(this.#result());
    this.#wake?.();
  }

  async *#walk(): AsyncGenerator<TokenEvent, void, undefined> {
    try {
      for (;;) {
        const events = this.#events;
        this.#events = [];
        yield* events;
        if (this.#events.length > 0) continue;
        if (this.#ended) break;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      await this.#final;
    } finally {
      this.#close();
    }
  }

  #result(): ServedResult {
    const { promptIds, promptLogprobs, answers, options, cachedTokens, arrivedMs } = this.#request;
    return {
      promptIds,
      promptLogprobs: options.promptLogprobs === undefined ? undefined : promptLogprobs,
      answers: answers.map(({ index, sequence, logprobs }) => ({
        index,
        ids: sequence.ids,
        text: sequence.text,
        finishReason: sequence.finishReason ?? 'closed',
        seed: sequence.seed,
        logprobs: options.logprobs === undefined ? undefined : logprobs,
      })),
      cachedTokens,
      firstTokenMs: this.#firstTokenMs,
      totalMs: performance.now() - arrivedMs,
    };
  }
}
