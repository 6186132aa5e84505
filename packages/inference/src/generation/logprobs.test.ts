/** Logarithms of probabilities against numbers worked out by hand. */
import { logprobOf } from './logprobs';

describe('the logarithm of a probability', () => {
  it('is that of the softmax, with the most likely tokens beside it', () => {
    // Weights 1, 2, 4, 2, 1: a sum of 10.
    const logits = Float32Array.from([1, 2, 4, 2, 1], Math.log);
    const { id, logprob, top } = logprobOf(logits, 4, 3);
    expect(id).toBe(4);
    expect(logprob).toBeCloseTo(Math.log(0.1), 6);
    expect(top.map((token) => token.id)).toEqual([2, 1, 3]);
    top.forEach((token, i) => {
      expect(token.logprob).toBeCloseTo(Math.log([0.4, 0.2, 0.2][i]!), 6);
    });
  });

  it('holds for large logits, no top ones, and more of them than there are tokens', () => {
    expect(logprobOf(Float32Array.from([1000, 1000]), 0, 0)).toEqual({ id: 0, logprob: -Math.log(2), top: [] });
    expect(logprobOf(Float32Array.from([0, 0]), 1, 5).top).toHaveLength(2);
    expect(() => logprobOf(Float32Array.from([Number.NaN]), 0, 0)).toThrow(/finite logits/);
  });
});
