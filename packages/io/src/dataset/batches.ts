/**
 * Which samples each rank sees, and when. The order depends on the count of consumed samples alone: a run resumed with
 * other ranks or batches continues with exactly the next sample.
 */
import { DsError } from '@ds/core-native';
import type { TokenDataset } from './token-dataset';

export interface BatchOptions {
  /** Samples B of one forward pass on one rank. */
  readonly microBatchSize: number;
  /** This rank among the data-parallel ones; default 0. */
  readonly dataParallelRank?: number;
  /** Data-parallel ranks; default 1. */
  readonly dataParallelSize?: number;
  /** Samples that all ranks together have seen before; default 0. */
  readonly consumedSamples?: number;
}

/** One micro-batch of one rank. */
export interface TokenBatch {
  /** [B, T] i32. */
  readonly inputs: Int32Array;
  /** [B, T] i32: `inputs` one token later. */
  readonly labels: Int32Array;
  readonly batchSize: number;
  readonly sequenceLength: number;
  /** Number of the first sample; the others follow it. */
  readonly firstSample: number;
}

/**
 * Deals micro-batches to ranks: micro-batch m holds samples m·B … m·B + B - 1 after the consumed ones, and rank r of N takes
 * m = r, r + N, r + 2N, …. So a global batch is a stretch of consecutive samples, whatever N is.
 */
export class BatchLoader {
  readonly dataset: TokenDataset;
  readonly microBatchSize: number;
  readonly dataParallelRank: number;
  readonly dataParallelSize: number;
  #consumedSamples: number;

  /** @throws DsError CONFIG for counts that are no such counts */
  constructor(dataset: TokenDataset, options: BatchOptions) {
    const { microBatchSize, dataParallelRank = 0, dataParallelSize = 1, consumedSamples = 0 } = options;
    requireCount('microBatchSize', microBatchSize, 1);
    requireCount('dataParallelSize', dataParallelSize, 1);
    requireCount('dataParallelRank', dataParallelRank, 0, dataParallelSize - 1);
    requireCount('consumedSamples', consumedSamples, 0);
    this.dataset = dataset;
    this.microBatchSize = microBatchSize;
    this.dataParallelRank = dataParallelRank;
    this.dataParallelSize = dataParallelSize;
    this.#consumedSamples = consumedSamples;
  }

  /** Samples consumed by all ranks so far. Save it; it is all that a resume needs. */
  get consumedSamples(): number {
    return this.#consumedSamples;
  }

  /** Returns this rank's next micro-batch and counts those of all ranks as consumed. @throws DsError of the dataset */
  next(): TokenBatch {
    const { dataset, microBatchSize: size } = this;
    const length = dataset.sequenceLength;
    const firstSample = this.#consumedSamples + this.dataParallelRank * size;
    const inputs = new Int32Array(size * length);
    const labels = new Int32Array(size * length);
    for (let b = 0; b < size; b++) {
      const ids = dataset.sample(firstSample + b);
      inputs.set(ids.subarray(0, length), b * length);
      labels.set(ids.subarray(1), b * length);
    }
    this.#consumedSamples += size * this.dataParallelSize;
    return { inputs, labels, batchSize: size, sequenceLength: length, firstSample };
  }
}

function requireCount(name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `of ${least} or more` : `from ${least} to ${most}`;
  const hint = 'Counts are in samples; ranks are numbered from 0.';
  throw new DsError({
    code: 'CONFIG',
    op: 'BatchLoader',
    expected: `an integer ${range} as ${name}`,
    actual: `${value}`,
    hint,
  });
}
