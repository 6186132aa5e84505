/** Samples of token files: in Megatron's shuffled order for training, front to back for evaluation. */
import { DsError } from '@ds/core-native';
import type { IndexedTokens } from './indexed-tokens';
import { buildSampleOrder, type SampleOrder, type SampleOrderOptions } from './sample-order';
import type { TokenDataset } from './token-dataset';

/** `numSamples` is what training will draw in all; the data is repeated in epochs until it is reached. */
export interface GptDatasetOptions extends SampleOrderOptions {
  /** Documents [begin, end) to use, as `splitByWeights` and `splitByRange` give them. Default: all. */
  readonly documents?: readonly [begin: number, end: number];
}

function requireSample(index: number, length: number, hint: string): void {
  if (Number.isInteger(index) && index >= 0 && index < length) return;
  const expected = `a sample from 0 to ${length - 1}`;
  throw new DsError({ code: 'CONFIG', op: 'sample', expected, actual: `${index}`, hint });
}

function documentRange(tokens: IndexedTokens, range: readonly [number, number] | undefined): Int32Array {
  const [begin, end] = range ?? [0, tokens.sequenceCount];
  if (Number.isInteger(begin) && Number.isInteger(end) && begin >= 0 && begin <= end && end <= tokens.sequenceCount) {
    const documents = new Int32Array(end - begin);
    for (let i = 0; i < documents.length; i++) documents[i] = begin + i;
    return documents;
  }
  const expected = `documents within 0 to ${tokens.sequenceCount} of ${tokens.prefix}`;
  const hint = 'Split by the number of documents in the file.';
  throw new DsError({ code: 'CONFIG', op: 'GptDataset', expected, actual: `${begin} to ${end}`, hint });
}

/** Fills `target` from the stream of documents, beginning at `offset` of `order[place]`. */
function readStream(tokens: IndexedTokens, order: Int32Array, place: number, offset: number, target: Int32Array): void {
  let filled = 0;
  for (let at = place, from = offset; filled < target.length; at++, from = 0) {
    const document = order[at]!;
    const count = Math.min(tokens.sizes[document]! - from, target.length - filled);
    if (count > 0) tokens.read(document, from, target.subarray(filled, filled + count));
    filled += count;
  }
}

/** Training samples in the order of Megatron's GPT dataset. */
export class GptDataset implements TokenDataset {
  readonly sequenceLength: number;
  readonly length: number;
  readonly order: SampleOrder;
  readonly #tokens: IndexedTokens;

  /** @throws DsError CONFIG as `buildSampleOrder` */
  constructor(tokens: IndexedTokens, options: GptDatasetOptions) {
    this.#tokens = tokens;
    this.sequenceLength = options.sequenceLength;
    this.order = buildSampleOrder(documentRange(tokens, options.documents), tokens.sizes, options);
    this.length = this.order.shuffle.length;
  }

  sample(index: number): Int32Array {
    requireSample(index, this.length, 'Build the dataset for as many samples as training draws (numSamples).');
    const { documentOrder, sampleStarts, shuffle } = this.order;
    const start = 2 * shuffle[index]!;
    const ids = new Int32Array(this.sequenceLength + 1);
    readStream(this.#tokens, documentOrder, sampleStarts[start]!, sampleStarts[start + 1]!, ids);
    return ids;
  }
}

/** Evaluation samples: the documents end to end, each token a label once; a rest shorter than a sample is left out. */
export class ContiguousDataset implements TokenDataset {
  readonly sequenceLength: number;
  readonly length: number;
  readonly #tokens: IndexedTokens;
  readonly #documents: Int32Array;
  /** First token of each document in the stream, and the end. */
  readonly #starts: Float64Array;

  /** @throws DsError CONFIG if the documents do not fill one sample */
  constructor(tokens: IndexedTokens, options: Pick<GptDatasetOptions, 'sequenceLength' | 'documents'>) {
    this.#tokens = tokens;
    this.sequenceLength = options.sequenceLength;
    this.#documents = documentRange(tokens, options.documents);
    this.#starts = new Float64Array(this.#documents.length + 1);
    for (const [i, document] of this.#documents.entries())
      this.#starts[i + 1] = this.#starts[i]! + tokens.sizes[document]!;
    const total = this.#starts.at(-1)!;
    this.length = Math.max(0, Math.floor((total - 1) / options.sequenceLength));
    if (this.length > 0 && Number.isInteger(options.sequenceLength)) return;
    const expected = `at least ${options.sequenceLength} + 1 tokens in ${tokens.prefix}`;
    const hint = 'Use shorter sequences or hold out more documents.';
    throw new DsError({ code: 'CONFIG', op: 'ContiguousDataset', expected, actual: `${total}`, hint });
  }

  sample(index: number): Int32Array {
    requireSample(index, this.length, 'It has no more.');
    const first = index * this.sequenceLength;
    let low = 0;
    let high = this.#documents.length;
    // The last document that begins at or before `first`.
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle]! <= first) low = middle;
      else high = middle;
    }
    const ids = new Int32Array(this.sequenceLength + 1);
    readStream(this.#tokens, this.#documents, low, first - this.#starts[low]!, ids);
    return ids;
  }
}
