/**
 * Which tokens are sample number i: Megatron's order, exactly, so that runs and resumes agree with it.
 *
 * Documents are shuffled and laid end to end, once per epoch; sample s is the stretch [s·T, s·T + T] of that stream (it
 * shares one token with the next); samples are shuffled again. All from one `RandomState(seed)`, documents first.
 * Source: Shoeybi et al. 2019 (Megatron-LM), its GPT dataset.
 */
import { DsError } from '@ds/core-native';
import { RandomState } from './mt19937';

/** The share in the Megatron-DeepSpeed that trained BLOOM. NVIDIA's Megatron-LM has 0.8. */
const SEPARATE_BELOW = 0.95;

export interface SampleOrderOptions {
  /** Tokens T of a sample as the model sees it; a sample reads T + 1. */
  readonly sequenceLength: number;
  /** Samples wanted; a few more may result, to the end of the last epoch. */
  readonly numSamples: number;
  readonly seed: number;
  /**
   * A last epoch of which less than this share of samples is wanted is shuffled apart, so that early training sees all
   * documents equally often. Default 0.95, as BLOOM; 0.8 continues a run of NVIDIA's Megatron-LM.
   */
  readonly separateLastEpochBelow?: number;
}

export interface SampleOrder {
  readonly epochs: number;
  readonly tokensPerEpoch: number;
  readonly separateLastEpoch: boolean;
  /** Documents in the order of the stream, all epochs. */
  readonly documentOrder: Int32Array;
  /** Begin of each stretch: place in `documentOrder`, offset in that document. One more than there are samples. */
  readonly sampleStarts: Int32Array;
  /** Stretch that sample i reads. */
  readonly shuffle: Int32Array;
}

/**
 * Works out the order of samples.
 *
 * @param documents numbers of the documents to use
 * @param sizes tokens of each document, by number
 * @throws DsError CONFIG if the documents are too short for one sample, or sizes are no positive integers
 */
export function buildSampleOrder(documents: Int32Array, sizes: Int32Array, options: SampleOrderOptions): SampleOrder {
  const { sequenceLength, numSamples, seed, separateLastEpochBelow = SEPARATE_BELOW } = options;
  requirePositive('sequenceLength', sequenceLength);
  requirePositive('numSamples', numSamples);
  const tokensPerEpoch = documents.reduce((sum, document) => sum + sizes[document]!, 0);
  if (tokensPerEpoch < 2) {
    const hint = 'Check the split: it may leave no document for this part.';
    const actual = `${tokensPerEpoch} in ${documents.length} documents`;
    throw new DsError({ code: 'CONFIG', op: 'buildSampleOrder', expected: 'at least 2 tokens', actual, hint });
  }
  const samplesIn = (epochs: number): number => Math.floor((epochs * tokensPerEpoch - 1) / sequenceLength);
  const epochs = Math.max(1, Math.ceil((numSamples * sequenceLength + 1) / tokensPerEpoch));
  const beforeLast = epochs > 1 ? samplesIn(epochs - 1) : 0;
  const fewFromLast = numSamples - beforeLast < Math.trunc(separateLastEpochBelow * samplesIn(1));
  const separateLastEpoch = epochs > 1 && fewFromLast;
  const total = samplesIn(epochs);
  requireIndexable('documents over all epochs', epochs * documents.length);
  requireIndexable('samples', total);
  const random = new RandomState(seed);
  const documentOrder = orderDocuments(documents, epochs, separateLastEpoch, random);
  const sampleStarts = findSampleStarts(sizes, documentOrder, total, sequenceLength);
  const shuffle = shuffleInParts(total, separateLastEpoch ? beforeLast : total, random);
  return { epochs, tokensPerEpoch, separateLastEpoch, documentOrder, sampleStarts, shuffle };
}

function requirePositive(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value > 0) return;
  const expected = `a positive integer as ${name}`;
  throw new DsError({
    code: 'CONFIG',
    op: 'buildSampleOrder',
    expected,
    actual: `${value}`,
    hint: 'Count in tokens or samples.',
  });
}

function requireIndexable(what: string, count: number): void {
  if (count <= 0x7fffffff) return;
  const hint = 'Use fewer samples or longer sequences; the order is held in 32-bit indices, as Megatron holds it.';
  throw new DsError({
    code: 'CONFIG',
    op: 'buildSampleOrder',
    expected: `at most 2^31 - 1 ${what}`,
    actual: `${count}`,
    hint,
  });
}

/** Repeats the documents and shuffles all epochs together, the last apart if asked. */
function orderDocuments(documents: Int32Array, epochs: number, separateLast: boolean, random: RandomState): Int32Array {
  const order = new Int32Array(documents.length * epochs);
  for (let epoch = 0; epoch < epochs; epoch++) order.set(documents, epoch * documents.length);
  const cut = separateLast ? documents.length * (epochs - 1) : order.length;
  random.shuffle(order.subarray(0, cut));
  random.shuffle(order.subarray(cut));
  return order;
}

/** Walks the stream and notes where each stretch of `sequenceLength` tokens begins, and where the last ends. */
function findSampleStarts(sizes: Int32Array, order: Int32Array, total: number, sequenceLength: number): Int32Array {
  const starts = new Int32Array(2 * (total + 1));
  let place = 0;
  let offset = 0;
  for (let sample = 1; sample <= total; sample++) {
    // Megatron reads T + 1 tokens and steps back one, which leaves the offset at the last token of a document where a
    // plain advance by T would stand at the first of the next: the same token, but its arrays say it this way.
    let remaining = sequenceLength + 1;
    for (;;) {
      const rest = sizes[order[place]!]! - offset;
      if (rest >= remaining) break;
      remaining -= rest;
      place++;
      offset = 0;
    }
    offset += remaining - 1;
    starts[2 * sample] = place;
    starts[2 * sample + 1] = offset;
  }
  return starts;
}

/** Numbers 0 … total - 1, the first `cut` shuffled among themselves, then the rest. */
function shuffleInParts(total: number, cut: number, random: RandomState): Int32Array {
  const numbers = new Int32Array(total);
  for (let i = 0; i < total; i++) numbers[i] = i;
  random.shuffle(numbers.subarray(0, cut));
  random.shuffle(numbers.subarray(cut));
  return numbers;
}
