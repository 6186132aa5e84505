/** Samples as the engine takes them: rows of T + 1 tokens, dealt to ranks in the order of consumed samples alone. */
import { BatchLoader, type TokenDataset } from '@ds/io';
import type { MicroBatch } from '@ds/zero';

export interface DealOptions {
  readonly microBatch: number;
  readonly rank: number;
  readonly world: number;
  /** Samples that all ranks together have seen; default 0. */
  readonly consumedSamples?: number;
}

/** Deals a dataset's samples; past its end it begins again. */
export function dealSamples(dataset: TokenDataset, options: DealOptions): BatchLoader {
  const { microBatch, rank, world, consumedSamples = 0 } = options;
  return new BatchLoader(endless(dataset), {
    microBatchSize: microBatch,
    dataParallelRank: rank,
    dataParallelSize: world,
    consumedSamples,
  });
}

function endless(dataset: TokenDataset): TokenDataset {
  const { sequenceLength, length } = dataset;
  return { sequenceLength, length, sample: (index) => dataset.sample(index % length) };
}

/** Takes this rank's next micro-batch. */
export function nextRows(loader: BatchLoader): MicroBatch {
  const { inputs, labels, batchSize, sequenceLength: T } = loader.next();
  const rows = Array.from({ length: batchSize }, (_, b) => {
    const row = new Int32Array(T + 1);
    row.set(inputs.subarray(b * T, (b + 1) * T));
    row[T] = labels[(b + 1) * T - 1]!;
    return row;
  });
  return { rows };
}

/**
 * Takes the micro-batches of one evaluation from the dataset's start: with `microBatches` a multiple of the world, the
 * same samples on any number of ranks.
 */
export function evaluationRows(dataset: TokenDataset, options: DealOptions, microBatches: number): MicroBatch[] {
  const loader = dealSamples(dataset, options);
  return Array.from({ length: Math.ceil(microBatches / options.world) }, () => nextRows(loader));
}
