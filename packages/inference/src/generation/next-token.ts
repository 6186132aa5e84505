/** From logits to the next token: allowed ids, bias, penalties, temperature, top-k, top-p, min-p, in this order; and the draw. */
import { DsError } from '@ds/core-native';
import { byFallingScore } from './falling-order';

/** What shapes the distribution. A missing one changes nothing. */
export interface SamplingOptions {
  /** Divides the logits: below 1 sharper, above 1 flatter. > 0. */
  temperature?: number;
  /** Keeps the k most likely tokens, and those as likely as the last of them. */
  topK?: number;
  /** Keeps the fewest most likely tokens that together have this probability. In (0, 1]. */
  topP?: number;
  /** Keeps tokens at least this share as likely as the most likely one. In (0, 1]. Source: Nguyen et al. 2024, sec. 3. */
  minP?: number;
  /** Above 1: makes tokens that occurred, in the prompt too, less likely. Source: Keskar et al. 2019 (CTRL), sec. 4.1. */
  repetitionPenalty?: number;
  /** Taken off the logit of each token that was written already, the prompt not counted; as in OpenAI's API. */
  presencePenalty?: number;
  /** Taken off as often as the token was written already, the prompt not counted; as in OpenAI's API. */
  frequencyPenalty?: number;
  /** Added to the logits of single tokens, by their ids. */
  logitBias?: ReadonlyMap<number, number>;
}

/** What a distribution may depend on besides the logits. */
export interface TokenHistory {
  /** The tokens so far, prompt included. */
  readonly seen: ReadonlySet<number>;
  /** How often each new token was written, prompt left out. */
  readonly written: ReadonlyMap<number, number>;
}

/** Ids that may come: 32 of them a word, the lowest in the lowest bit. */
export type AllowedIds = Uint32Array;

/** Tokens that may come next. */
export interface Distribution {
  /** In rising order. */
  readonly ids: Uint32Array;
  /** Of each of them; their sum is 1. */
  readonly probabilities: Float64Array;
}

/**
 * Gives the scores that a greedy choice compares: the logits with what `options` asks for, up to the penalties.
 *
 * @param logits [V], f32; not changed
 * @param allowed ids that may come; undefined: all
 * @throws CONFIG where none is allowed
 */
export function scoresOf(
  logits: Float32Array,
  history: TokenHistory,
  options: SamplingOptions,
  allowed?: AllowedIds,
): Float64Array {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias } = options;
  const scores = new Float64Array(logits);
  if (allowed) forbidOthers(scores, allowed);
  if (logitBias) for (const [id, bias] of logitBias) scores[id]! += bias;
  if (repetitionPenalty !== 1)
    for (const id of history.seen)
      scores[id] = scores[id]! < 0 ? scores[id]! * repetitionPenalty : scores[id]! / repetitionPenalty;
  if (presencePenalty !== 0 || frequencyPenalty !== 0)
    for (const [id, count] of history.written) scores[id]! -= presencePenalty + frequencyPenalty * count;
  return scores;
}

/** Gives what is drawn from. `scores` come from `scoresOf` and are divided by the temperature in place. @throws INTERNAL */
export function distributionOf(scores: Float64Array, options: SamplingOptions): Distribution {
  const { temperature = 1 } = options;
  if (temperature !== 1) for (let i = 0; i < scores.length; i++) scores[i]! /= temperature;
  const largest = scores[largestIndex(scores)]!;
  return softmax(scores, largest, keptIds(scores, largest, options));
}

/**
 * Gives the distribution of the next token.
 *
 * @param logits [V], f32; not changed
 * @param seen the tokens so far, prompt included; for the repetition penalty
 * @param written how often each new token was written; for the presence and frequency penalties
 * @throws INTERNAL for logits without a finite largest one
 */
export function nextTokenDistribution(
  logits: Float32Array,
  seen: ReadonlySet<number>,
  options: SamplingOptions,
  written: ReadonlyMap<number, number> = new Map(),
): Distribution {
  return distributionOf(scoresOf(logits, { seen, written }, options), options);
}

/** Draws with a uniform number in [0, 1): the first token, by rising id, where the probabilities up to it pass `u`. */
export function draw({ ids, probabilities }: Distribution, u: number): number {
  let passed = 0;
  for (let i = 0; i < ids.length; i++) {
    passed += probabilities[i]!;
    if (u < passed) return ids[i]!;
  }
  return ids[ids.length - 1]!; // the sum may round to just below 1
}

/** The first of the largest scores. @throws INTERNAL when there is none that is finite */
export function largestIndex(scores: Float64Array | Float32Array): number {
  const isNotANumber = Number.isNaN;
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]! || isNotANumber(scores[i]!)) best = i;
  if (Number.isFinite(scores[best]!)) return best;
  throw new DsError({
    code: 'INTERNAL',
    op: 'next token',
    expected: 'finite logits',
    actual: `${scores[best]} for token ${best}`,
    hint: 'the weights are damaged, or overflow in f16: load the model with dtype f32',
  });
}

function forbidOthers(scores: Float64Array, allowed: AllowedIds): void {
  let any = false;
  for (let id = 0; id < scores.length; id++)
    if (((allowed[id >>> 5] ?? 0) >>> (id & 31)) & 1) any = true;
    else scores[id] = Number.NEGATIVE_INFINITY;
  if (any) return;
  throw new DsError({
    code: 'CONFIG',
    op: 'next token',
    expected: 'a mask that allows at least one token',
    actual: 'none',
    hint: 'where a text can only end, its mask allows the end-of-text token',
  });
}

/** The ids that top-k, top-p and min-p leave, in rising order. */
function keptIds(scores: Float64Array, largest: number, options: SamplingOptions): Uint32Array {
  const ids = keptByRank(scores, largest, options);
  const { minP } = options;
  if (minP === undefined) return ids;
  const least = largest + Math.log(minP);
  return ids.filter((id) => scores[id]! >= least);
}

function keptByRank(scores: Float64Array, largest: number, { topK, topP }: SamplingOptions): Uint32Array {
  const cutsK = topK !== undefined && topK < scores.length;
  const cutsP = topP !== undefined && topP < 1;
  if (!cutsK && !cutsP) return finiteIds(scores);
  const falling = byFallingScore(scores, largest);
  const top = cutsK ? topKOf(falling, scores, topK) : undefined;
  if (!cutsP) return Uint32Array.from(top!).sort();
  const total = totalWeight(scores, largest, top ?? finiteIds(scores));
  return Uint32Array.from(nucleusOf(top ?? falling, scores, largest, topP * total)).sort();
}

function finiteIds(scores: Float64Array): Uint32Array {
  const nothing = Number.NEGATIVE_INFINITY;
  const ids = new Uint32Array(scores.length);
  let count = 0;
  for (let i = 0; i < scores.length; i++) if (scores[i]! !== nothing) ids[count++] = i;
  return ids.subarray(0, count);
}

/** The first k, and what is as large as the last of them. */
function topKOf(falling: Iterable<number>, scores: Float64Array, k: number): number[] {
  const kept: number[] = [];
  for (const id of falling) {
    if (kept.length >= k && scores[id]! < scores[kept.at(-1)!]!) break;
    kept.push(id);
  }
  return kept;
}

/** The first whose weights reach `wanted`. */
function nucleusOf(falling: Iterable<number>, scores: Float64Array, largest: number, wanted: number): number[] {
  const kept: number[] = [];
  let weight = 0;
  for (const id of falling) {
    if (weight >= wanted) break;
    kept.push(id);
    weight += Math.exp(scores[id]! - largest);
  }
  return kept;
}

function totalWeight(scores: Float64Array, largest: number, ids: ArrayLike<number>): number {
  const { exp } = Math;
  let total = 0;
  for (let i = 0; i < ids.length; i++) total += exp(scores[ids[i]!]! - largest);
  return total;
}

function softmax(scores: Float64Array, largest: number, ids: Uint32Array): Distribution {
  const { exp } = Math;
  const probabilities = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i++) {
    probabilities[i] = exp(scores[ids[i]!]! - largest);
    total += probabilities[i]!;
  }
  for (let i = 0; i < ids.length; i++) probabilities[i]! /= total;
  return { ids, probabilities };
}
