/** The distribution of the next token against the reference, against a plain sort, and the draw from it. */
import fc from 'fast-check';
import { goldenModels, readGolden } from '../../../../test/support/golden';
import { byFallingScore } from './falling-order';
import {
  type Distribution,
  draw,
  largestIndex,
  nextTokenDistribution,
  type SamplingOptions,
  scoresOf,
} from './next-token';

const none: ReadonlySet<number> = new Set();

/** The same by sorting everything, as one would write it first. */
function naive(
  logits: Float32Array,
  { temperature = 1, topK, topP = 1, minP = 0 }: SamplingOptions,
): Map<number, number> {
  let kept = Array.from(logits, (logit, id) => ({ id, score: logit / temperature }))
    .filter(({ score }) => score !== Number.NEGATIVE_INFINITY)
    .sort((a, b) => b.score - a.score || a.id - b.id);
  const last = kept[Math.min(topK ?? kept.length, kept.length) - 1]!.score;
  kept = kept.filter(({ score }) => score >= last);
  const largest = kept[0]!.score;
  const weight = (score: number) => Math.exp(score - largest);
  const total = kept.reduce((sum, { score }) => sum + weight(score), 0);
  let mass = 0;
  kept = kept.filter(({ score }) => {
    const before = mass;
    mass += weight(score);
    return topP === 1 || before < topP * total;
  });
  kept = kept.filter(({ score }) => score >= largest + Math.log(minP));
  const rest = kept.reduce((sum, { score }) => sum + weight(score), 0);
  return new Map(kept.sort((a, b) => a.id - b.id).map(({ id, score }) => [id, weight(score) / rest]));
}

function toMap({ ids, probabilities }: Distribution): Map<number, number> {
  return new Map(Array.from(ids, (id, i) => [id, probabilities[i]!]));
}

describe.each(goldenModels)('the distribution of the next token of %s', (name) => {
  const { prompts, sampling } = readGolden(name);
  const { input_ids, last_logits } = prompts[0]!;

  it.each(sampling)('after $params', ({ params, kept_count, kept_ids, top5 }) => {
    const { repetition_penalty, temperature, top_k, top_p } = params;
    const distribution = nextTokenDistribution(Float32Array.from(last_logits), new Set(input_ids), {
      ...(repetition_penalty ? { repetitionPenalty: repetition_penalty } : {}),
      ...(temperature ? { temperature } : {}),
      ...(top_k ? { topK: top_k } : {}),
      ...(top_p ? { topP: top_p } : {}),
    });
    expect(distribution.ids.length).toBe(kept_count);
    if (kept_ids) expect([...distribution.ids]).toEqual(kept_ids);
    const sorted = [...toMap(distribution)].sort((a, b) => b[1] - a[1]).slice(0, 5);
    expect(sorted.map(([id]) => id)).toEqual(top5.map(([id]) => id));
    sorted.forEach(([, probability], i) => {
      expect(Math.abs(probability - top5[i]![1])).toBeLessThan(1e-5);
    });
  });
});

describe('the distribution of the next token', () => {
  const logits = fc.array(
    fc.oneof(
      fc.double({ min: -200, max: 200, noNaN: true }),
      fc.integer({ min: -3, max: 3 }),
      fc.constant(Number.NEGATIVE_INFINITY),
    ),
    { minLength: 1, maxLength: 300 },
  );
  const options = fc.record(
    {
      temperature: fc.double({ min: 0.01, max: 100, noNaN: true }),
      topK: fc.integer({ min: 1, max: 320 }),
      topP: fc.double({ min: 1e-3, max: 1, noNaN: true }),
      minP: fc.double({ min: 1e-3, max: 1, noNaN: true }),
    },
    { requiredKeys: [] },
  );

  it('is what a plain sort gives, ties and infinities included', () => {
    fc.assert(
      fc.property(logits, options, (values, sampling) => {
        const scores = Float32Array.from(values);
        fc.pre(values.some(Number.isFinite));
        const [wanted, got] = [naive(scores, sampling), toMap(nextTokenDistribution(scores, none, sampling))];
        // At the edge of a nucleus the last digits of a sum decide, about tokens of no weight.
        for (const id of new Set([...got.keys(), ...wanted.keys()]))
          expect(Math.abs((got.get(id) ?? 0) - (wanted.get(id) ?? 0))).toBeLessThan(1e-9);
        if (sampling.topP === undefined) expect([...got.keys()]).toEqual([...wanted.keys()]);
        expect([...got.values()].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
      }),
      { numRuns: 500 },
    );
  });

  it('walks scores from the largest to the smallest', () => {
    fc.assert(
      fc.property(logits, (values) => {
        const scores = Float64Array.from(values);
        fc.pre(values.some(Number.isFinite));
        const wanted = [...scores.keys()]
          .filter((i) => scores[i] !== Number.NEGATIVE_INFINITY)
          .sort((i, j) => scores[j]! - scores[i]! || i - j);
        expect([...byFallingScore(scores, Math.max(...values))]).toEqual(wanted);
      }),
      { numRuns: 300 },
    );
  });

  it('is drawn from as often as the probabilities say', () => {
    const distribution = { ids: Uint32Array.from([3, 5, 9]), probabilities: Float64Array.from([0.25, 0.5, 0.25]) };
    expect([0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2 ** -53].map((u) => draw(distribution, u))).toEqual([3, 3, 5, 5, 9, 9]);
    const rounded = { ids: Uint32Array.from([1, 2]), probabilities: Float64Array.from([0.5, 0.4999]) };
    expect(draw(rounded, 0.99999)).toBe(2);
  });

  it('follows bias, the penalties of tokens written, and a mask', () => {
    const logits = Float32Array.from([1, 2, 3, 4]);
    const history = { seen: new Set([0, 2, 3]), written: new Map([[2, 3]]) };
    const shaped = (options: SamplingOptions, allowed?: Uint32Array) => [
      ...scoresOf(logits, history, options, allowed),
    ];
    expect(shaped({})).toEqual([1, 2, 3, 4]);
    expect(shaped({ logitBias: new Map([[1, -5]]) })).toEqual([1, -3, 3, 4]);
    expect(shaped({ repetitionPenalty: 2 })).toEqual([0.5, 2, 1.5, 2]);
    expect(shaped({ presencePenalty: 0.5 })).toEqual([1, 2, 2.5, 4]);
    expect(shaped({ frequencyPenalty: 0.5 })).toEqual([1, 2, 1.5, 4]);
    expect(shaped({ presencePenalty: 1, frequencyPenalty: 0.5, repetitionPenalty: 2 })).toEqual([0.5, 2, -1, 2]);
    const nothing = Number.NEGATIVE_INFINITY;
    expect(shaped({}, Uint32Array.of(0b0101))).toEqual([1, nothing, 3, nothing]);
    expect(() => shaped({}, Uint32Array.of(0b10000))).toThrow(/at least one token/);
    expect([...nextTokenDistribution(logits, none, { minP: Math.exp(-2) }).ids]).toEqual([1, 2, 3]);
  });

  it('needs a finite largest logit', () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
      for (const scores of [
        [bad, 1],
        [1, bad, 2],
      ])
        expect(() => nextTokenDistribution(Float32Array.from(scores), none, {})).toThrow(/finite logits/);
    expect(() => largestIndex(Float64Array.from([Number.NEGATIVE_INFINITY]))).toThrow(/finite logits/);
    expect(largestIndex(Float64Array.from([1, 3, 3, 2]))).toBe(1);
  });
});
