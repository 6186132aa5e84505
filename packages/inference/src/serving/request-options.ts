/** What a request may ask for, its checks and its defaults. */
import { DsError } from '@ds/core-native';
import {
  DEFAULT_NEW_TOKENS,
  type GenerateOptions,
  generateRules,
  type ResolvedGenerateOptions,
  withDefaults,
} from '../generation/generate-options';
import type { TokenMask } from '../generation/sequence';
import { checkOptions, rules } from '../options';

export interface RequestOptions extends GenerateOptions {
  /** Answers to give; default 1. They share the prompt's pages; answer i draws with seed + i. */
  n?: number;
  /** Logarithms of probabilities, and how many of the most likely tokens beside each; default none at all. */
  logprobs?: number;
  /** The same for the tokens of the prompt but the first. Needs logits of every one of them: a slow prompt. Default none. */
  promptLogprobs?: number;
  /** Gives the prompt's tokens first, as part of each answer's text; default false. */
  echo?: boolean;
  /** Says before each new token which ids may come: structured output. */
  mask?: TokenMask;
  /** Ends the request with a TIMEOUT error, this long after it came; default never. */
  timeoutMs?: number;
  /** Requests share computed pages only with those of the same salt; default ''. */
  cacheSalt?: string;
}

export interface ResolvedRequestOptions extends ResolvedGenerateOptions {
  readonly maxNewTokens: number;
  readonly n: number;
  readonly logprobs: number | undefined;
  readonly promptLogprobs: number | undefined;
  readonly echo: boolean;
  readonly mask: TokenMask | undefined;
  readonly timeoutMs: number;
  readonly cacheSalt: string;
}

/** What the engine has room for. */
export interface RequestRoom {
  readonly promptTokens: number;
  /** Tokens of a text that the model reads: all but the last. */
  readonly contextTokens: number;
  /** Tokens that the pages hold. */
  readonly cacheTokens: number;
  /** Answers that can be in the making at once. */
  readonly answers: number;
}

/** Checks options and puts defaults in place. @throws CONFIG, also for more tokens than there is room for */
export function resolveRequestOptions(options: RequestOptions, room: RequestRoom): ResolvedRequestOptions {
  const op = 'submit';
  checkOptions<RequestOptions>(op, options, {
    ...generateRules,
    n: rules.wholeFrom(1),
    logprobs: rules.wholeFrom(0),
    promptLogprobs: rules.wholeFrom(0),
    echo: rules.flag,
    mask: rules.callback,
    timeoutMs: rules.above(0),
    cacheSalt: rules.text,
  });
  const { n = 1 } = options;
  if (n > room.answers) throw tooMuch(`n of at most ${room.answers}, the answers in the making at once`, String(n));
  const most = Math.min(room.contextTokens, room.cacheTokens) - room.promptTokens + 1;
  if (most < 1)
    throw tooMuch(`a prompt of at most ${most + room.promptTokens - 1} tokens`, `${room.promptTokens} tokens`);
  const { minNewTokens = 0, maxNewTokens = Math.max(minNewTokens, Math.min(DEFAULT_NEW_TOKENS, most)) } = options;
  if (maxNewTokens > most)
    throw tooMuch(
      `maxNewTokens of at most ${most} behind ${room.promptTokens} tokens of the prompt`,
      String(maxNewTokens),
    );
  return {
    ...withDefaults(op, { ...options, maxNewTokens }),
    maxNewTokens,
    n,
    logprobs: options.logprobs,
    promptLogprobs: options.promptLogprobs,
    echo: options.echo ?? false,
    mask: options.mask,
    timeoutMs: options.timeoutMs ?? Number.POSITIVE_INFINITY,
    cacheSalt: options.cacheSalt ?? '',
  };
}

function tooMuch(expected: string, actual: string): DsError {
  return new DsError({
    code: 'CONFIG',
    op: 'submit',
    expected,
    actual,
    hint: "ask for less, or give the engine more pages or the model's full context",
  });
}
