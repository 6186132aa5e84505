/** A request and its answers: what they are made of, and how far each of them is. */
import type { NextToken } from '../generation/decoder';
import { type LikelyToken, logprobOf, type TokenLogprob } from '../generation/logprobs';
import { type FinishReason, type GeneratedToken, Sequence, type SequenceParts } from '../generation/sequence';
import { PageKeys } from './prefix-cache';
import type { ResolvedRequestOptions } from './request-options';

/** One token of one answer. */
export interface TokenEvent extends GeneratedToken {
  /** Which of the n answers. */
  readonly index: number;
  /** Set for tokens that echo the prompt. */
  readonly fromPrompt?: true;
  /** Where the request asked for it; the first token of a prompt has none. */
  readonly logprob?: number;
  /** The most likely tokens in its place, by the same probabilities. */
  readonly top?: readonly LikelyToken[];
  /** With an answer's last token. */
  readonly finishReason?: Exclude<FinishReason, 'closed'>;
}

export interface RequestParts {
  /** Which request this is: the earlier one is senior. */
  readonly order: number;
  readonly promptIds: readonly number[];
  readonly options: ResolvedRequestOptions;
  readonly endTokenIds: readonly number[];
  readonly tokenizer: SequenceParts['tokenizer'];
  readonly pageTokens: number;
  /** Time now. */
  readonly arrivedMs: number;
}

export class Request {
  readonly order: number;
  readonly promptIds: readonly number[];
  readonly options: ResolvedRequestOptions;
  readonly arrivedMs: number;
  readonly deadlineMs: number;
  readonly pageTokens: number;
  /** The first alone until the prompt is read; then all n. */
  readonly answers: Answer[] = [];
  /** Of the prompt's tokens 1 and on, as far as they are known. */
  readonly promptLogprobs: TokenLogprob[] = [];
  /** Whether it has ever been begun. */
  begun = false;
  /** Tokens of the prompt that a cache knew when it was begun. */
  cachedTokens = 0;
  readonly #parts: RequestParts;

  constructor(parts: RequestParts) {
    this.#parts = parts;
    this.order = parts.order;
    this.promptIds = parts.promptIds;
    this.options = parts.options;
    this.arrivedMs = parts.arrivedMs;
    this.deadlineMs = parts.arrivedMs + parts.options.timeoutMs;
    this.pageTokens = parts.pageTokens;
    this.addAnswer();
  }

  get finished(): boolean {
    return this.answers.length === this.options.n && this.answers.every(({ sequence }) => sequence.finishReason);
  }

  /** Whether it still has to make its other answers, which it does when the prompt has been read. */
  get unforked(): boolean {
    return this.answers.length < this.options.n;
  }

  /** Whether all the logprobs of the prompt's tokens are there that were asked for. */
  get promptScored(): boolean {
    return this.options.promptLogprobs === undefined || this.promptLogprobs.length === this.promptIds.length - 1;
  }

  addAnswer(): Answer {
    const { options, endTokenIds, tokenizer, promptIds } = this.#parts;
    const index = this.answers.length;
    const seed = options.seed === undefined ? undefined : options.seed + index;
    const { maxNewTokens, mask } = options;
    const sequence = new Sequence({ promptIds, maxNewTokens, endTokenIds, tokenizer, options, seed, mask });
    const answer = new Answer(this, index, sequence);
    this.answers.push(answer);
    return answer;
  }

  /** Takes the logits [V] of the prompt's token `position - 1`, which say how likely the one at `position` was. */
  scorePrompt(position: number, logits: Float32Array): void {
    this.promptLogprobs.push(logprobOf(logits, this.promptIds[position]!, this.options.promptLogprobs!));
  }
}

export class Answer {
  readonly request: Request;
  readonly index: number;
  /** Names it among all answers of an engine. */
  readonly id: string;
  readonly sequence: Sequence;
  /** The prompt, then the new tokens. */
  readonly tokens: number[];
  readonly keys: PageKeys;
  readonly logprobs: TokenLogprob[] = [];
  /** Tokens whose keys and values lie in the pages. */
  computed = 0;
  pages: number[] = [];
  /** Pages that the prefix cache was told of. */
  knownPages = 0;
  /** Guesses of the tokens to come, to be verified in the next step. */
  drafts: readonly number[] = [];
  /** When it last took part in a step, in turns of all answers. */
  lastTurn = 0;
  state: 'waiting' | 'running' | 'ended' = 'waiting';

  constructor(request: Request, index: number, sequence: Sequence) {
    this.request = request;
    this.index = index;
    this.id = `${request.order}.${index}`;
    this.sequence = sequence;
    this.tokens = [...request.promptIds];
    this.keys = new PageKeys(request.pageTokens, request.options.cacheSalt);
  }

  /** Tokens to compute before the next one can be chosen: 1 while it is written, more while a text is read. */
  get left(): number {
    return this.tokens.length - this.computed;
  }

  /** Tokens that may still be written. */
  get unwritten(): number {
    return this.request.options.maxNewTokens - this.sequence.ids.length;
  }

  /** Whether this one reads the prompt for its probabilities. */
  get scoresPrompt(): boolean {
    return this.index === 0 && !this.request.promptScored;
  }

  get needsLogits(): boolean {
    return this.request.options.logprobs !== undefined || this.sequence.needsLogits;
  }

  /** Forgets what the pages held: they go to someone else. */
  restart(): void {
    this.computed = 0;
    this.pages = [];
    this.knownPages = 0;
    this.drafts = [];
  }

  /** Gives the prompt as the beginning of the answer. */
  *echo(): Generator<TokenEvent, void> {
    const { promptIds, promptLogprobs } = this.request;
    for (const [i, id] of promptIds.entries()) {
      const text = this.sequence.echo(id);
      const { logprob, top } = promptLogprobs[i - 1] ?? {};
      yield { index: this.index, id, text, fromPrompt: true, ...(top ? { logprob: logprob!, top } : {}) };
    }
  }

  /** Chooses the next token and takes it in. @throws CONFIG, INTERNAL, and what a mask throws */
  write({ id: largest, logits }: NextToken): TokenEvent {
    const id = largest ?? this.sequence.choose(logits);
    const { logprobs } = this.request.options;
    const likely = logprobs === undefined ? undefined : logprobOf(logits!, id, logprobs);
    const token = this.sequence.append(id);
    this.tokens.push(id);
    if (likely) this.logprobs.push(likely);
    const { finishReason } = this.sequence;
    return {
      index: this.index,
      ...token,
      ...(likely ? { logprob: likely.logprob, top: likely.top } : {}),
      ...(finishReason ? { finishReason } : {}),
    };
  }
}
