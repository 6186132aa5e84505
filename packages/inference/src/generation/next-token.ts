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
  const scores = Float64Array.from(logits);
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
  const { temperature = 1, topK, topP, repetitionPenalty = 1 } = options;
  const scores = penalize(logits, seen, repetitionPenalty);
  if (temperature !== 1) for (let i = 0; i < scores.length; i++) scores[i]! /= temperature;
  const largest = scores[largestIndex(scores)]!;
  if (topK !== undefined && topK < scores.length) keepTopK(scores, largest, topK);
  if (topP !== undefined && topP < 1) keepTopP(scores, largest, topP);
  return softmax(scores, largest);
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
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]! || Number.isNaN(scores[i]!)) best = i;
  if (Number.isFinite(scores[best]!)) return best;
  throw new DsError({
    code: 'INTERNAL',
    op: 'next token',
    expected: 'finite logits',
    actual: `${scores[best]} for token ${best}`,
    hint: 'the weights are damaged, or overflow in f16: load the model with dtype f32',
  });
}

function keepTopK(scores: Float64Array, largest: number, k: number): void {
  let last = largest;
  let count = 0;
  for (const i of byFallingScore(scores, largest)) {
    last = scores[i]!;
    if (++count === k) break;
  }
  for (let i = 0; i < scores.length; i++) if (scores[i]! < last) scores[i] = Number.NEGATIVE_INFINITY;
}

function keepTopP(scores: Float64Array, largest: number, p: number): void {
  let wanted = 0;
  for (const score of scores) wanted += Math.exp(score - largest);
  wanted *= p;
  const kept = new Float64Array(scores.length).fill(Number.NEGATIVE_INFINITY);
  let mass = 0;
  for (const i of byFallingScore(scores, largest)) {
    if (mass >= wanted) break;
    kept[i] = scores[i]!;
    mass += Math.exp(scores[i]! - largest);
  }
  scores.set(kept);
}

function softmax(scores: Float64Array, largest: number): Distribution {
  let count = 0;
  let total = 0;
  for (const score of scores) {
    if (score === Number.NEGATIVE_INFINITY) continue;
    count++;
    total += Math.exp(score - largest);
  }
  const ids = new Uint32Array(count);
  const probabilities = new Float64Array(count);
  let at = 0;
  scores.forEach((score, i) => {
    if (score === Number.NEGATIVE_INFINITY) return;
    ids[at] = i;
    probabilities[at++] = Math.exp(score - largest) / total;
  });
  return { ids, probabilities };
}
