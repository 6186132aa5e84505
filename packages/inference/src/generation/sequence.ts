/** One text in the making: which token comes next, what it spells, and whether it is the last. */
import type { StreamDecoder, Tokenizer } from '@ds/io';
import type { ResolvedGenerateOptions } from './generate-options';
import { type AllowedIds, distributionOf, draw, largestIndex, scoresOf, type TokenHistory } from './next-token';
import { uniform } from './philox';
import { StopTexts } from './stop-texts';

/** Why a text ended: enough tokens, an end-of-text token, a stop text or stop token, or nobody took the rest. */
export type FinishReason = 'length' | 'end' | 'stop' | 'closed';

export interface GeneratedToken {
  readonly id: number;
  /** Text that is certain with this token; '' while a character or a stop text may be incomplete. Joined: the whole text. */
  readonly text: string;
}

/** Says which ids may come behind the new tokens so far; undefined: all. */
export type TokenMask = (ids: readonly number[]) => AllowedIds | undefined;

export interface SequenceParts {
  readonly promptIds: readonly number[];
  readonly maxNewTokens: number;
  /** Tokens that end a text. */
  readonly endTokenIds: readonly number[];
  readonly tokenizer: Pick<Tokenizer, 'streamDecoder'> | undefined;
  readonly options: ResolvedGenerateOptions;
  /** Undefined: greedy. */
  readonly seed: number | undefined;
  readonly mask?: TokenMask | undefined;
}

export class Sequence implements TokenHistory {
  readonly promptIds: readonly number[];
  readonly maxNewTokens: number;
  readonly seed: number | undefined;
  /** The new tokens; an end-of-text token that ended it is the last of them. */
  readonly ids: number[] = [];
  /** What they spell, special tokens left out, up to a stop text. */
  text = '';
  /** Undefined while it goes on. */
  finishReason: Exclude<FinishReason, 'closed'> | undefined;
  /** Filled, like `written`, only where a penalty asks for it. */
  readonly seen: Set<number>;
  readonly written = new Map<number, number>();
  readonly #options: ResolvedGenerateOptions;
  readonly #endTokenIds: ReadonlySet<number>;
  readonly #stopTokenIds: ReadonlySet<number>;
  readonly #mask: TokenMask | undefined;
  readonly #decoder: StreamDecoder | undefined;
  readonly #stopTexts: StopTexts;

  constructor({ promptIds, maxNewTokens, endTokenIds, tokenizer, options, seed, mask }: SequenceParts) {
    this.promptIds = promptIds;
    this.maxNewTokens = maxNewTokens;
    this.seed = seed;
    this.#options = options;
    this.#endTokenIds = new Set(options.ignoreEos ? [] : endTokenIds);
    this.#stopTokenIds = new Set(options.stopTokenIds);
    this.#mask = mask;
    this.#decoder = tokenizer?.streamDecoder({ skipSpecialTokens: true });
    this.#stopTexts = new StopTexts(options.stop, options.includeStop);
    this.seen = new Set(this.#penalizes ? promptIds : []);
  }

  /** Whether choosing needs the logits, and not only which of them is the largest. Once it does not, it never will again. */
  get needsLogits(): boolean {
    const { logitBias } = this.#options.sampling;
    const changes = this.#penalizes || logitBias !== undefined || this.#mask !== undefined;
    return changes || this.seed !== undefined || this.#tooShort;
  }

  /** Chooses the next token by its logits [V]; changes nothing. @throws CONFIG, INTERNAL */
  choose(logits: Float32Array): number {
    if (!this.needsLogits) return largestIndex(logits);
    const { sampling } = this.#options;
    const scores = scoresOf(logits, this, sampling, this.#mask?.(this.ids));
    if (this.#tooShort)
      for (const id of [...this.#endTokenIds, ...this.#stopTokenIds]) scores[id] = Number.NEGATIVE_INFINITY;
    if (this.seed === undefined) return largestIndex(scores);
    return draw(distributionOf(scores, sampling), uniform(this.seed, this.ids.length));
  }

  /** Puts a token of the prompt into the text, before all new ones. */
  echo(id: number): string {
    const text = this.#decoder?.push(id) ?? '';
    this.text += text;
    return text;
  }

  /** Takes a token in. */
  append(id: number): GeneratedToken {
    const stopsCount = !this.#tooShort;
    this.ids.push(id);
    if (this.#penalizes) {
      this.seen.add(id);
      this.written.set(id, (this.written.get(id) ?? 0) + 1);
    }
    const isStop = this.#stopTokenIds.has(id);
    const piece = isStop && !this.#options.includeStop ? '' : (this.#decoder?.push(id) ?? '');
    let text = stopsCount ? this.#stopTexts.push(piece) : piece;
    if (this.#endTokenIds.has(id)) this.finishReason = 'end';
    else if (isStop || this.#stopTexts.stopped) this.finishReason = 'stop';
    else if (this.ids.length === this.maxNewTokens) this.finishReason = 'length';
    if (this.finishReason) text += this.#stopTexts.push(this.#decoder?.flush() ?? '') + this.#stopTexts.flush();
    this.text += text;
    return { id, text };
  }

  get #penalizes(): boolean {
    const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = this.#options.sampling;
    return repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
  }

  get #tooShort(): boolean {
    return this.ids.length < this.#options.minNewTokens;
  }
}
