/** How to generate: the options, their checks and their defaults. */
import { randomInt } from 'node:crypto';
import { DsError } from '@ds/core-native';
import { checkOptions, rules } from '../options';
import type { SamplingOptions } from './next-token';

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to write at most; default 128, or what is left of the model's context. */
  maxNewTokens?: number;
  /** Takes the most likely token each time. Default true, unless temperature, topK, topP or seed asks for a draw. */
  greedy?: boolean;
  /** Makes a draw repeatable; default a random one, which the result tells. Prompt i of a batch draws with seed + i. */
  seed?: number;
  /** Texts before which to end. */
  stop?: string | readonly string[];
  /** Writes on behind the end-of-text token; default false. */
  ignoreEos?: boolean;
  /** Ends generation within one token, with an ABORTED error. */
  signal?: AbortSignal;
}

/** The same with every default in place. */
export interface ResolvedGenerateOptions {
  /** Undefined: the default, which depends on the prompt. */
  readonly maxNewTokens: number | undefined;
  /** Undefined: greedy. */
  readonly seed: number | undefined;
  readonly sampling: SamplingOptions;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  readonly signal: AbortSignal | undefined;
}

const drawing = ['temperature', 'topK', 'topP', 'seed'] as const;

/** Checks options and puts defaults in place. @throws CONFIG */
export function resolveGenerateOptions(op: string, options: GenerateOptions): ResolvedGenerateOptions {
  checkOptions<GenerateOptions>(op, options, {
    maxNewTokens: rules.wholeFrom(1),
    greedy: rules.flag,
    temperature: rules.above(0),
    topK: rules.wholeFrom(0),
    topP: rules.share,
    repetitionPenalty: rules.above(0),
    seed: rules.wholeFrom(0),
    stop: rules.texts,
    ignoreEos: rules.flag,
    signal: rules.signal,
  });
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
  const { temperature, topK, topP, repetitionPenalty } = options;
  return {
    maxNewTokens: options.maxNewTokens,
    seed: greedy ? undefined : (options.seed ?? randomInt(2 ** 32)),
    sampling: {
      ...(temperature === undefined ? {} : { temperature }),
      ...(topK ? { topK } : {}),
      ...(topP === undefined ? {} : { topP }),
      ...(repetitionPenalty === undefined ? {} : { repetitionPenalty }),
    },
    stop: [options.stop ?? []].flat(),
    ignoreEos: options.ignoreEos ?? false,
    signal: options.signal,
  };
}
