/**
 * Several datasets mixed by weight, as Megatron mixes: sample i goes to the dataset that lags its share the most.
 * Source: Megatron-LM, its blended dataset.
 */
import { DsError } from '@ds/core-native';
import type { TokenDataset } from './token-dataset';

/** Headroom when a dataset is built for its share: rounding must never ask for a sample it does not have. */
const HEADROOM = 1.005;

export interface Blend {
  /** Dataset of each sample. */
  readonly datasetOf: Int32Array;
  /** Sample within that dataset. */
  readonly sampleOf: Int32Array;
}

function normalize(weights: readonly number[]): number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  if (weights.length > 0 && weights.every((weight) => weight >= 0) && sum > 0 && Number.isFinite(sum)) {
    return weights.map((weight) => weight / sum);
  }
  const hint = 'Weights are shares of the samples; they need not sum to 1.';
  const expected = 'weights that are not negative and not all 0';
  throw new DsError({ code: 'CONFIG', op: 'blend', expected, actual: `[${weights.join(', ')}]`, hint });
}

/** Chooses the dataset of each of `size` samples. @throws DsError CONFIG for weights that are no shares */
export function buildBlend(weights: readonly number[], size: number): Blend {
  const shares = normalize(weights);
  const used = new Float64Array(shares.length);
  const datasetOf = new Int32Array(size);
  const sampleOf = new Int32Array(size);
  for (let i = 0; i < size; i++) {
    const position = Math.max(i, 1);
    let chosen = 0;
    let lag = shares[0]! * position - used[0]!;
    for (let d = 1; d < shares.length; d++) {
      const other = shares[d]! * position - used[d]!;
      if (other > lag) {
        chosen = d;
        lag = other;
      }
    }
    datasetOf[i] = chosen;
    sampleOf[i] = used[chosen]!++;
  }
  return { datasetOf, sampleOf };
}

/** Counts the samples each dataset must be built for, so that `size` blended ones can be drawn. */
export function samplesPerDataset(weights: readonly number[], size: number): number[] {
  return normalize(weights).map((share) => Math.ceil(size * share * HEADROOM));
}

/** A weighted mixture of datasets of one sequence length. */
export class BlendedDataset implements TokenDataset {
  readonly sequenceLength: number;
  readonly length: number;
  readonly #datasets: readonly TokenDataset[];
  readonly #blend: Blend;

  /** @throws DsError CONFIG if lengths differ or a dataset is too small for its share */
  constructor(datasets: readonly TokenDataset[], weights: readonly number[], size: number) {
    this.#datasets = datasets;
    this.#blend = buildBlend(weights, size);
    this.length = size;
    this.sequenceLength = datasets[0]?.sequenceLength ?? 0;
    const needed = new Int32Array(weights.length);
    for (const chosen of this.#blend.datasetOf) needed[chosen]!++;
    const fail = (expected: string, actual: string, hint: string): DsError =>
      new DsError({ code: 'CONFIG', op: 'BlendedDataset', expected, actual, hint });
    if (datasets.length !== weights.length) {
      throw fail(
        'one weight per dataset',
        `${weights.length} for ${datasets.length}`,
        'Give every dataset its weight.',
      );
    }
    for (const [d, dataset] of datasets.entries()) {
      if (dataset.sequenceLength !== this.sequenceLength) {
        const actual = `${dataset.sequenceLength} in dataset ${d}`;
        throw fail(`sequences of ${this.sequenceLength} tokens`, actual, 'Build all with the same sequenceLength.');
      }
      if (dataset.length < needed[d]!) {
        const expected = `at least ${needed[d]} samples in dataset ${d}`;
        throw fail(expected, `${dataset.length}`, 'Build each dataset for samplesPerDataset(weights, size).');
      }
    }
  }

  sample(index: number): Int32Array {
    const { datasetOf, sampleOf } = this.#blend;
    const chosen = datasetOf[index];
    if (chosen !== undefined) return this.#datasets[chosen]!.sample(sampleOf[index]!);
    const expected = `a sample from 0 to ${this.length - 1}`;
    throw new DsError({
      code: 'CONFIG',
      op: 'sample',
      expected,
      actual: `${index}`,
      hint: 'Build it for more samples.',
    });
  }
}
