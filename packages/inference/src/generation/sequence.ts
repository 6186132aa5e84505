/** One text in the making: which token comes next, what it spells, and whether it is the last. */
import type { StreamDecoder, Tokenizer } from '@ds/io';
import type { ResolvedGenerateOptions } from './generate-options';
import { draw, largestIndex, nextTokenDistribution, penalize } from './next-token';
import { uniform } from './philox';
import { StopTexts } from './stop-texts';

/** Why a text ended: enough tokens, an end-of-text token, a stop text, or nobody took the rest. */
export type FinishReason = 'length' | 'end' | 'stop' | 'closed';

export interface GeneratedToken {
  readonly id: number;
  /** Text that is certain with this token; '' while a character or a stop text may be incomplete. Joined: the whole text. */
  readonly text: string;
}

export interface SequenceParts {
  readonly promptIds: readonly number[];
  readonly maxNewTokens: number;
  /** Tokens that end a text. */
  readonly endTokenIds: readonly number[];
  readonly tokenizer: Tokenizer | undefined;
  readonly options: ResolvedGenerateOptions;
  /** Undefined: greedy. */
  readonly seed: number | undefined;
}

export class Sequence {
  readonly promptIds: readonly number[];
  readonly maxNewTokens: number;
  readonly seed: number | undefined;
  /** The new tokens; an end-of-text token that ended it is the last of them. */
  readonly ids: number[] = [];
  /** What they spell, special tokens left out, up to a stop text. */
  text = '';
  /** Undefined while it goes on. */
  finishReason: Exclude<FinishReason, 'closed'> | undefined;
  readonly #options: ResolvedGenerateOptions;
  readonly #endTokenIds: ReadonlySet<number>;
  readonly #decoder: StreamDecoder | undefined;
  readonly #stopTexts: StopTexts;
  readonly #seen: Set<number>;

  constructor({ promptIds, maxNewTokens, endTokenIds, tokenizer, options, seed }: SequenceParts) {
    this.promptIds = promptIds;
    this.maxNewTokens = maxNewTokens;
    this.seed = seed;
    this.#options = options;
    this.#endTokenIds = new Set(options.ignoreEos ? [] : endTokenIds);
    this.#decoder = tokenizer?.streamDecoder({ skipSpecialTokens: true });
    this.#stopTexts = new StopTexts(options.stop);
    this.#seen = new Set(promptIds);
  }

  /** Whether choosing needs the logits, and not only which of them is the largest. */
  static needsLogits(options: ResolvedGenerateOptions): boolean {
    return options.seed !== undefined || (options.sampling.repetitionPenalty ?? 1) !== 1;
  }

  /** Chooses the next token by its logits [V]; changes nothing. */
  choose(logits: Float32Array): number {
    const { sampling } = this.#options;
    if (this.seed === undefined) return largestIndex(penalize(logits, this.#seen, sampling.repetitionPenalty ?? 1));
    return draw(nextTokenDistribution(logits, this.#seen, sampling), uniform(this.seed, this.ids.length));
  }

  /** Takes a token in. */
  append(id: number): GeneratedToken {
    this.ids.push(id);
    this.#seen.add(id);
    let text = this.#stopTexts.push(this.#decoder?.push(id) ?? '');
    if (this.#endTokenIds.has(id)) this.finishReason = 'end';
    else if (this.#stopTexts.stopped) this.finishReason = 'stop';
    else if (this.ids.length === this.maxNewTokens) this.finishReason = 'length';
    if (this.finishReason) text += this.#stopTexts.push(this.#decoder?.flush() ?? '') + this.#stopTexts.flush();
    this.text += text;
    return { id, text };
  }
}
