import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { BlendedDataset, buildBlend, samplesPerDataset } from './blended-dataset';
import { ContiguousDataset, GptDataset } from './gpt-dataset';
import { IndexedTokens, IndexedTokensWriter } from './indexed-tokens';
import { RandomState } from './mt19937';
import { buildSampleOrder } from './sample-order';
import { splitByRange, splitByWeights } from './splits';

const golden = join(__dirname, '../../../../test/golden/megatron-data');
const reference: {
  docs: number[][];
  index: {
    num_samples: number;
    seq_length: number;
    seed: number;
    epochs: number;
    tokens_per_epoch: number;
    separate_last_epoch: boolean;
    doc_idx: number[];
    sample_idx: [number, number][];
    shuffle_idx: number[];
    first_samples: number[][];
  }[];
  blend: { weights: number[]; size: number; dataset_index: number[]; dataset_sample_index: number[] }[];
  raw_mt19937_first_8: Record<string, number[]>;
  shuffle_arange_10: Record<string, number[]>;
  split_by_range: { range: string; size: number; bounds: number[] }[];
  train_valid_test_split: { split: string; size: number; bounds: number[] }[];
} = JSON.parse(fs.readFileSync(join(golden, 'golden.json'), 'utf8'));
const folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));

const upTo = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);

describe('RandomState', () => {
  test.each(Object.entries(reference.raw_mt19937_first_8))('draws the bits of numpy for seed %s', (seed, bits) => {
    const random = new RandomState(Number(seed));
    expect(bits.map(() => random.uint32())).toEqual(bits);
  });

  test.each(Object.entries(reference.shuffle_arange_10))('shuffles as numpy for seed %s', (seed, order) => {
    const values = upTo(10);
    new RandomState(Number(seed)).shuffle(values);
    expect([...values]).toEqual(order);
  });

  test('continues past its first 624 outputs', () => {
    // The 10,000th output of the original C code with seed 5489 is given by the C++ standard ([rand.predef]).
    const random = new RandomState(5489);
    for (let i = 1; i < 10_000; i++) random.uint32();
    expect(random.uint32()).toBe(4123659995);
  });

  test('refuses seeds that numpy refuses', () => {
    for (const seed of [-1, 2 ** 32, 0.5]) expect(() => new RandomState(seed)).toThrow(/a seed from 0 to 4294967295/);
  });
});

describe('the order of samples', () => {
  const sizes = Int32Array.from(reference.docs, (ids) => ids.length);

  test.each(reference.index)(
    'is the one of the reference for $num_samples samples of $seq_length, seed $seed',
    (expected) => {
      const options = { sequenceLength: expected.seq_length, numSamples: expected.num_samples, seed: expected.seed };
      const order = buildSampleOrder(upTo(sizes.length), sizes, options);
      expect(order.epochs).toBe(expected.epochs);
      expect(order.tokensPerEpoch).toBe(expected.tokens_per_epoch);
      expect(order.separateLastEpoch).toBe(expected.separate_last_epoch);
      expect([...order.documentOrder]).toEqual(expected.doc_idx);
      expect([...order.sampleStarts]).toEqual(expected.sample_idx.flat());
      expect([...order.shuffle]).toEqual(expected.shuffle_idx);
      using tokens = IndexedTokens.open(join(golden, 'i32_text_document'), { vocabSize: 512 });
      const dataset = new GptDataset(tokens, options);
      expect(expected.first_samples.map((_, i) => [...dataset.sample(i)])).toEqual(expected.first_samples);
      expect(dataset.length).toBe(expected.shuffle_idx.length);
    },
  );

  test('shuffles a last epoch apart below 95 % of its samples, or below the share given', () => {
    // One document of 101 tokens: 10 samples of 10 in the first epoch; 95 % of 10, rounded down, are 9.
    const separate = (numSamples: number, separateLastEpochBelow?: number): boolean => {
      const share = separateLastEpochBelow === undefined ? {} : { separateLastEpochBelow };
      return buildSampleOrder(upTo(1), Int32Array.of(101), { sequenceLength: 10, numSamples, seed: 1, ...share })
        .separateLastEpoch;
    };
    expect([10, 11, 18, 19, 20].map((count) => separate(count))).toEqual([false, true, true, false, false]);
    expect([17, 18].map((count) => separate(count, 0.8))).toEqual([true, false]);
  });

  test('reads each token of each epoch once as an input, over any documents', () => {
    const size = fc.nat(9);
    const documents = fc
      .array(size, { minLength: 1, maxLength: 12 })
      .filter((list) => list.reduce((a, b) => a + b, 0) > 1);
    let run = 0;
    fc.assert(
      fc.property(
        documents,
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 60 }),
        fc.nat(1000),
        (lengths, seq, count, seed) => {
          const prefix = join(folder, `order-${run++}`);
          using writer = IndexedTokensWriter.create(prefix, 'u16');
          let next = 0;
          for (const length of lengths) writer.addDocument(Array.from({ length }, () => next++));
          writer.finish();
          using tokens = IndexedTokens.open(prefix);
          const dataset = new GptDataset(tokens, { sequenceLength: seq, numSamples: count, seed });
          expect(dataset.length).toBeGreaterThanOrEqual(count);
          const { documentOrder, shuffle } = dataset.order;
          const stream = [...documentOrder].flatMap((document) => [...tokens.sequence(document)]);
          const first = lengths.map((_, i) => lengths.slice(0, i).reduce((a, b) => a + b, 0));
          expect(stream).toEqual(
            [...documentOrder].flatMap((d) => Array.from({ length: lengths[d]! }, (_, i) => first[d]! + i)),
          );
          for (let i = 0; i < dataset.length; i++) {
            const begin = shuffle[i]! * seq;
            expect([...dataset.sample(i)]).toEqual(stream.slice(begin, begin + seq + 1));
          }
          expect([...shuffle].sort((a, b) => a - b)).toEqual([...upTo(dataset.length)]);
        },
      ),
      { numRuns: 120, seed: 4 },
    );
  });

  test('refuses what makes no sample, and samples beyond those it was built for', () => {
    const options = { sequenceLength: 4, numSamples: 3, seed: 1 };
    expect(() => buildSampleOrder(upTo(2), Int32Array.of(1, 0), options)).toThrow(
      /at least 2 tokens, got 1 in 2 documents/,
    );
    expect(() => buildSampleOrder(upTo(0), Int32Array.of(), options)).toThrow(/at least 2 tokens/);
    expect(() => buildSampleOrder(upTo(1), Int32Array.of(9), { ...options, sequenceLength: 0 })).toThrow(
      /sequenceLength/,
    );
    expect(() => buildSampleOrder(upTo(1), Int32Array.of(9), { ...options, numSamples: 1.5 })).toThrow(/numSamples/);
    expect(() =>
      buildSampleOrder(upTo(1), Int32Array.of(2), { ...options, sequenceLength: 1, numSamples: 2 ** 31 }),
    ).toThrow(/2\^31/);
    using tokens = IndexedTokens.open(join(golden, 'u16_text_document'));
    const dataset = new GptDataset(tokens, options);
    expect(() => dataset.sample(dataset.length)).toThrow(/a sample from 0 to .*numSamples/);
    expect(() => dataset.sample(-1)).toThrow(expect.objectContaining({ code: 'CONFIG' }));
    expect(() => new GptDataset(tokens, { ...options, documents: [0, 9] })).toThrow(/documents within 0 to 8/);
  });
});

describe('splits', () => {
  test.each(reference.split_by_range)('by range $range of $size', ({ range, size, bounds }) => {
    expect(splitByRange(range, size)).toEqual(bounds);
  });

  test.each(reference.train_valid_test_split)('by weights $split of $size', ({ split, size, bounds }) => {
    expect(splitByWeights(split, size)).toEqual(bounds);
  });

  test('round halves to even and accept fewer parts', () => {
    expect(splitByWeights('1,1', 5)).toEqual([0, 3, 5, 5]);
    expect(splitByWeights('100', 7)).toEqual([0, 7, 7, 7]);
    expect(splitByRange('0.5:1', 5)).toEqual([2, 5]);
    expect(splitByRange('0.5:1', 7)).toEqual([4, 7]);
  });

  test('refuse nonsense', () => {
    for (const split of ['', 'a,b', '1,-1', '0,0', '1,1,1,1', 'Infinity'])
      expect(() => splitByWeights(split, 9)).toThrow(/weights/);
    for (const range of ['', '1:0', '0:1.1', '0', '0:1:2', 'x:y', ':'])
      expect(() => splitByRange(range, 9)).toThrow(/shares/);
  });
});

describe('blending', () => {
  test.each(reference.blend)(
    '$size samples of weights $weights',
    ({ weights, size, dataset_index, dataset_sample_index }) => {
      const { datasetOf, sampleOf } = buildBlend(weights, size);
      expect([...datasetOf]).toEqual(dataset_index);
      expect([...sampleOf]).toEqual(dataset_sample_index);
    },
  );

  test('begins with the heaviest dataset, wherever it stands', () => {
    // Lags by hand, in sevenths: i=0 (1, 4, 2) i=1 (1, -3, 2) i=2 (2, 1, -3) i=3 (-4, 5, -1) i=4 (-3, 2, 1).
    expect([...buildBlend([1, 4, 2], 5).datasetOf]).toEqual([1, 2, 0, 1, 1]);
  });

  test('draws from each dataset in turn and asks each for enough', () => {
    const of = (name: number, length: number) => ({
      sequenceLength: 1,
      length,
      sample: (i: number) => Int32Array.of(name, i),
    });
    const weights = [3, 1];
    expect(samplesPerDataset(weights, 8)).toEqual([7, 3]);
    const blended = new BlendedDataset([of(0, 7), of(1, 3)], weights, 8);
    const { datasetOf, sampleOf } = buildBlend(weights, 8);
    for (let i = 0; i < 8; i++) expect([...blended.sample(i)]).toEqual([datasetOf[i], sampleOf[i]]);
    expect(() => blended.sample(8)).toThrow(/a sample from 0 to 7/);
    expect(() => new BlendedDataset([of(0, 5), of(1, 3)], weights, 8)).toThrow(
      /at least 6 samples in dataset 0, got 5/,
    );
    expect(() => new BlendedDataset([of(0, 9)], weights, 8)).toThrow(/one weight per dataset/);
    expect(() => new BlendedDataset([of(0, 9), { ...of(1, 9), sequenceLength: 2 }], weights, 8)).toThrow(
      /sequences of 1 tokens/,
    );
    for (const bad of [[], [0, 0], [-1, 2], [Number.NaN]])
      expect(() => buildBlend(bad, 3)).toThrow(/weights that are not negative/);
  });
});

test('ContiguousDataset makes each token but the first a label once, in order', () => {
  using tokens = IndexedTokens.open(join(golden, 'u16_text_document'));
  const stream = reference.docs.flat();
  for (const sequenceLength of [1, 7, 32, 592]) {
    const dataset = new ContiguousDataset(tokens, { sequenceLength });
    expect(dataset.length).toBe(Math.floor(592 / sequenceLength));
    for (let i = 0; i < dataset.length; i++) {
      expect([...dataset.sample(i)]).toEqual(stream.slice(i * sequenceLength, (i + 1) * sequenceLength + 1));
    }
  }
  const part = new ContiguousDataset(tokens, { sequenceLength: 10, documents: [2, 5] });
  expect([...part.sample(1)]).toEqual(reference.docs.slice(2, 5).flat().slice(10, 21));
  expect(() => part.sample(part.length)).toThrow(/It has no more/);
  expect(() => new ContiguousDataset(tokens, { sequenceLength: 593 })).toThrow(/at least 593 \+ 1 tokens in .*got 593/);
});
