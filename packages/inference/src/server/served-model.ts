/**
 * What the server asks of a model: its tokens, and answers to prompts. The serving engine stands behind it (`engine-model.ts`);
 * tests put a scripted one there.
 */
import type { ChatTemplate } from '@ds/io';

export interface LikelyServedToken {
  readonly id: number;
  /** Natural logarithm of the model's own probability. */
  readonly logprob: number;
}

/** One token of one answer. */
export interface ServedToken {
  readonly id: number;
  /** Which of the n answers. */
  readonly index: number;
  /** Text that is certain with this token; '' while a character or a stop text may be incomplete. */
  readonly text: string;
  /** Set for tokens that echo the prompt. */
  readonly fromPrompt?: true;
  /** Where the request asked for it; the first token of a prompt has none. */
  readonly logprob?: number;
  /** The most likely tokens in its place. */
  readonly top?: readonly LikelyServedToken[];
  /** With an answer's last token. */
  readonly finishReason?: 'length' | 'end' | 'stop';
}

/** What shapes the answers. The names are those of the engine's options. */
export interface ServedOptions {
  readonly maxNewTokens: number;
  readonly n?: number;
  readonly greedy?: boolean;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly logitBias?: Readonly<Record<number, number>>;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly ignoreEos?: boolean;
  readonly logprobs?: number;
  readonly promptLogprobs?: number;
  readonly echo?: boolean;
}

export interface ServedRequest {
  readonly promptIds: readonly number[];
  readonly options: ServedOptions;
  /** Ends the request and frees what it holds. */
  readonly signal: AbortSignal;
  /** Only requests with the same one may share computed pages: how fast an answer comes must not tell of other people's prompts. */
  readonly cacheSalt: string;
}

/** How the engine is doing. Counters only rise. */
export interface ServedMetrics {
  readonly running: number;
  readonly waiting: number;
  /** Share of the pages for keys and values that is in use, 0 to 1. */
  readonly cacheUsage: number;
  readonly pagesInUse: number;
  readonly preemptions: number;
  readonly prefixQueries: number;
  readonly prefixHits: number;
}

export interface ServedModel {
  /** By which requests name it; no path. */
  readonly id: string;
  readonly contextTokens: number;
  readonly vocabSize: number;
  /** Undefined: the model knows no conversations. */
  readonly chatTemplate: ChatTemplate | undefined;
  encode(text: string, addSpecialTokens: boolean): readonly number[];
  decode(ids: readonly number[]): string;
  /** What a token stands for; half a character is possible. */
  tokenBytes(id: number): Uint8Array;
  /**
   * Takes a request in. Tokens of all its answers come in one stream.
   *
   * @throws DsError CONFIG with op `submit` for what it has no room for, OVERLOADED; the stream: ABORTED, TIMEOUT, OVERLOADED
   */
  submit(request: ServedRequest): AsyncIterable<ServedToken>;
  metrics(): ServedMetrics;
  /** Waits until nothing runs any more. */
  drain(): Promise<void>;
}
