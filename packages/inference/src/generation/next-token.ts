/** From logits to the next token: repetition penalty, temperature, top-k, top-p, in this order, and the draw. */
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
  /** Above 1: makes tokens that occurred, in the prompt too, less likely. Source: Keskar et al. 2019 (CTRL), sec. 4.1. */
  repetitionPenalty?: number;
}

/** Tokens that may come next. */
export interface Distribution {
  /** In rising order. */
  readonly ids: Uint32Array;
  /** Of each of them; their sum is 1. */
  readonly probabilities: Float64Array;
}

/** Applies the repetition penalty: logits of seen tokens are divided by it if positive, multiplied if negative. */
export function penalize(logits: Float32Array, seen: ReadonlySet<number>, penalty: number): Float64Array {
  const scores = new Float64Array(logits);
  if (penalty !== 1)
    for (const id of seen) scores[id] = scores[id]! < 0 ? scores[id]! * penalty : scores[id]! / penalty;
  return scores;
}

/**
 * Gives the distribution of the next token.
 *
 * @param logits [V], f32; not changed
 * @param seen the tokens so far, prompt included; for the repetition penalty
 * @throws INTERNAL for logits without a finite largest one
 */
export function nextTokenDistribution(
  logits: Float32Array,
  seen: ReadonlySet<number>,
  options: SamplingOptions,
): Distribution {
  const { temperature = 1, repetitionPenalty = 1 } = options;
  const scores = penalize(logits, seen, repetitionPenalty);
  if (temperature !== 1) for (let i = 0; i < scores.length; i++) scores[i]! /= temperature;
  const largest = scores[largestIndex(scores)]!;
  return softmax(scores, largest, keptIds(scores, largest, options));
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
export function largestIndex(scores: Float64Array): number {
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

/** The ids that top-k and top-p leave, in rising order. */
function keptIds(scores: Float64Array, largest: number, { topK, topP }: SamplingOptions): Uint32Array {
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
