/** How to generate: the options, their checks and their defaults. */
import { randomInt } from 'node:crypto';
import { DsError } from '@ds/core-native';
import { checkOptions, type OptionRules, rules } from '../options';
import type { SamplingOptions } from './next-token';

/** Where `maxNewTokens` is left out and the context has room for more. */
export const DEFAULT_NEW_TOKENS = 128;

export interface GenerateOptions extends Omit<SamplingOptions, 'logitBias'> {
  /** Tokens to write at most; default 128, or what is left of the model's context. */
  maxNewTokens?: number;
  /** Tokens before which no end-of-text token, stop token or stop text counts; default 0. */
  minNewTokens?: number;
  /** Added to the logits of single tokens: `{ 11: -100 }` keeps token 11 away. */
  logitBias?: Readonly<Record<number, number>>;
  /** Takes the most likely token each time. Default true, unless temperature, topK, topP or seed asks for a draw. */
  greedy?: boolean;
  /** Makes a draw repeatable; default a random one, which the result tells. Prompt i of a batch draws with seed + i. */
  seed?: number;
  /** Texts before which to end. */
  stop?: string | readonly string[];
  /** Tokens with which to end, besides the model's end-of-text tokens. */
  stopTokenIds?: readonly number[];
  /** Whether the text holds the stop text, or what the stop token spells; default false. */
  includeStop?: boolean;
  /** Writes on behind the end-of-text token; default false. */
  ignoreEos?: boolean;
  /** Ends generation within one token, with an ABORTED error. */
  signal?: AbortSignal;
}

/** The same with every default in place. */
export interface ResolvedGenerateOptions {
  /** Undefined: the default, which depends on the prompt. */
  readonly maxNewTokens: number | undefined;
  readonly minNewTokens: number;
  /** Undefined: greedy. */
  readonly seed: number | undefined;
  readonly sampling: SamplingOptions;
  readonly stop: readonly string[];
  readonly stopTokenIds: readonly number[];
  readonly includeStop: boolean;
  readonly ignoreEos: boolean;
  readonly signal: AbortSignal | undefined;
}

const drawing = ['temperature', 'topK', 'topP', 'minP', 'seed'] as const;

export const generateRules: OptionRules<GenerateOptions> = {
  maxNewTokens: rules.wholeFrom(1),
  minNewTokens: rules.wholeFrom(0),
  greedy: rules.flag,
  temperature: rules.above(0),
  topK: rules.wholeFrom(0),
  topP: rules.share,
  minP: rules.share,
  repetitionPenalty: rules.above(0),
  presencePenalty: rules.finite,
  frequencyPenalty: rules.finite,
  logitBias: rules.numberById,
  seed: rules.wholeFrom(0),
  stop: rules.texts,
  stopTokenIds: rules.ids,
  includeStop: rules.flag,
  ignoreEos: rules.flag,
  signal: rules.signal,
};

/** Checks options and puts defaults in place. @throws CONFIG */
export function resolveGenerateOptions(op: string, options: GenerateOptions): ResolvedGenerateOptions {
  checkOptions(op, options, generateRules);
  return withDefaults(op, options);
}

/** Puts defaults in place of what is missing in checked options. @throws CONFIG for options that exclude each other */
export function withDefaults(op: string, options: GenerateOptions): ResolvedGenerateOptions {
  const asked = drawing.filter((name) => options[name] !== undefined);
  if (options.greedy && asked.length > 0)
    throw new DsError({
      code: 'CONFIG',
      op,
      expected: 'either greedy or a draw',
      actual: `greedy and ${asked.join(', ')}`,
      hint: 'greedy takes the most likely token each time: leave the others out, or leave greedy out',
    });
  const greedy = options.greedy ?? asked.length === 0;
  const { minNewTokens = 0, maxNewTokens = Number.POSITIVE_INFINITY } = options;
  if (minNewTokens > maxNewTokens)
    throw new DsError({
      code: 'CONFIG',
      op,
      expected: `minNewTokens of at most maxNewTokens, ${maxNewTokens}`,
      actual: String(minNewTokens),
    });
  return {
    maxNewTokens: options.maxNewTokens,
    minNewTokens,
    seed: greedy ? undefined : (options.seed ?? randomInt(2 ** 32)),
    sampling: samplingOf(options),
    stop: [options.stop ?? []].flat(),
    stopTokenIds: options.stopTokenIds ?? [],
    includeStop: options.includeStop ?? false,
    ignoreEos: options.ignoreEos ?? false,
    signal: options.signal,
  };
}

/** What is left out of the options stays left out; a top-k of 0 means none, as in Hugging Face's files. */
function samplingOf(options: GenerateOptions): SamplingOptions {
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = options;
  const biases = Object.entries(logitBias ?? {}).map(([id, bias]) => [Number(id), bias] as const);
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(topK ? { topK } : {}),
    ...(topP === undefined ? {} : { topP }),
    ...(minP === undefined ? {} : { minP }),
    ...(repetitionPenalty === undefined ? {} : { repetitionPenalty }),
    ...(presencePenalty === undefined ? {} : { presencePenalty }),
    ...(frequencyPenalty === undefined ? {} : { frequencyPenalty }),
    ...(biases.length === 0 ? {} : { logitBias: new Map(biases) }),
  };
}
