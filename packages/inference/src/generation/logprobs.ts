/** Logarithms of probabilities: of a token, and of the most likely ones beside it. */
import { byFallingScore } from './falling-order';
import { largestIndex } from './next-token';

export interface LikelyToken {
  readonly id: number;
  /** Natural logarithm of the probability that the model itself gives: before bias, penalties, temperature and masks. */
  readonly logprob: number;
}

export interface TokenLogprob extends LikelyToken {
  /** The most likely tokens, falling; of equals the lower id first. */
  readonly top: readonly LikelyToken[];
}

/**
 * Gives the logarithm of a token's probability, and those of the `count` most likely tokens.
 *
 * @param logits [V] of the model, unchanged
 * @throws INTERNAL for logits without a finite largest one
 */
export function logprobOf(logits: Float32Array, id: number, count: number): TokenLogprob {
  const scores = new Float64Array(logits);
  const largest = scores[largestIndex(scores)]!;
  const { exp } = Math;
  let total = 0;
  for (let i = 0; i < scores.length; i++) total += exp(scores[i]! - largest);
  const logTotal = Math.log(total);
  const likely = (token: number): LikelyToken => ({ id: token, logprob: scores[token]! - largest - logTotal });
  const top: LikelyToken[] = [];
  if (count > 0)
    for (const token of byFallingScore(scores, largest)) {
      top.push(likely(token));
      if (top.length === count) break;
    }
  return { ...likely(id), top };
}
