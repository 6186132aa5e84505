import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BatchLoader } from './batches';
import { RowDataset } from './row-dataset';

const folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));

describe('RowDataset', () => {
  const file = (content: unknown): string => {
    const path = join(folder, 'ids.json');
    fs.writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
    return path;
  };

  test('takes rows in order and wraps around', () => {
    const dataset = RowDataset.open(
      file({
        ids: [
          [1, 2, 3],
          [4, 5, 6],
        ],
        note: 'x',
      }),
    );
    expect([dataset.sequenceLength, dataset.length]).toEqual([2, 2]);
    expect([0, 1, 2, 5].map((i) => [...dataset.sample(i)])).toEqual([
      [1, 2, 3],
      [4, 5, 6],
      [1, 2, 3],
      [4, 5, 6],
    ]);
    dataset.sample(0)[0] = 99;
    expect(dataset.sample(0)[0]).toBe(1);
    expect(() => dataset.sample(-1)).toThrow(/a sample number of 0 or more/);
  });

  test('reads the training batch of the golden model', () => {
    const golden = JSON.parse(
      fs.readFileSync(join(__dirname, '../../../../test/golden/bloom-tiny/golden.json'), 'utf8'),
    );
    const dataset = RowDataset.open(file({ ids: golden.train.input_ids }), { vocabSize: 512 });
    expect([dataset.sequenceLength, dataset.length]).toEqual([31, 4]);
    expect([...dataset.sample(7)]).toEqual(golden.train.input_ids[3]);
  });

  const cases: [title: string, content: unknown, message: RegExp][] = [
    ['no JSON', '{"ids"', /JSON in .*ids.json/],
    ['a list', [[1, 2]], /an object with "ids", a list of lists, in .*ids.json/],
    ['a number as row', { ids: [1] }, /a list of lists/],
    ['no row', { ids: [] }, /rows of at least 2 ids in .*ids.json, got no row/],
    ['rows of one id', { ids: [[1]] }, /got 1/],
    [
      'uneven rows',
      {
        ids: [
          [1, 2],
          [1, 2, 3],
        ],
      },
      /rows of 2 ids, as the first in .*got 3 in row 1/,
    ],
    [
      'a negative id',
      {
        ids: [
          [1, 2],
          [1, -2],
        ],
      },
      /ids from 0 to 511 in .*got "-2" in row 1, place 1/,
    ],
    ['an id outside the vocabulary', { ids: [[1, 512]] }, /got "512" in row 0, place 1/],
    ['a string as id', { ids: [[1, '2']] }, /got "2" in row 0/],
    ['a fraction', { ids: [[1, 2.5]] }, /got "2.5"/],
  ];
  test.each(cases)('refuses %s', (_title, content, message) => {
    expect(() => RowDataset.open(file(content), { vocabSize: 512 })).toThrow(message);
  });
});

describe('BatchLoader', () => {
  const rows = new RowDataset(Array.from({ length: 1000 }, (_, i) => [i, i + 1000, i + 2000, i + 3000]));

  test('cuts samples into inputs and labels', () => {
    const batch = new BatchLoader(rows, { microBatchSize: 2, consumedSamples: 5 }).next();
    expect([...batch.inputs]).toEqual([5, 1005, 2005, 6, 1006, 2006]);
    expect([...batch.labels]).toEqual([1005, 2005, 3005, 1006, 2006, 3006]);
    expect(batch).toMatchObject({ batchSize: 2, sequenceLength: 3, firstSample: 5 });
  });

  test('gives ranks the micro-batches r, r + N, r + 2N, …', () => {
    const options = { microBatchSize: 3, dataParallelSize: 2, consumedSamples: 10 };
    const ranks = [0, 1].map((dataParallelRank) => new BatchLoader(rows, { ...options, dataParallelRank }));
    expect(ranks.map((rank) => [rank.next(), rank.next()].map((batch) => batch.firstSample))).toEqual([
      [10, 16],
      [13, 19],
    ]);
    expect(ranks.map((rank) => rank.consumedSamples)).toEqual([22, 22]);
  });

  test('gives the same stream of samples for any ranks, batches and points of resuming', () => {
    const seen = (consumed: number, size: number, world: number, until: number): [number[], number] => {
      const samples: number[] = [];
      const loaders = Array.from(
        { length: world },
        (_, dataParallelRank) =>
          new BatchLoader(rows, {
            microBatchSize: size,
            dataParallelRank,
            dataParallelSize: world,
            consumedSamples: consumed,
          }),
      );
      while (loaders[0]!.consumedSamples < until) {
        for (const loader of loaders) {
          const { inputs } = loader.next();
          for (let b = 0; b < size; b++) samples.push(inputs[3 * b]!);
        }
      }
      return [samples, loaders[0]!.consumedSamples];
    };
    for (const [sizeA, worldA, sizeB, worldB] of [
      [1, 1, 2, 3],
      [4, 2, 3, 1],
      [2, 4, 1, 8],
    ] as const) {
      const [first, consumed] = seen(0, sizeA, worldA, 37);
      const [second, end] = seen(consumed, sizeB, worldB, 80);
      expect([...first, ...second]).toEqual(Array.from({ length: end }, (_, i) => i));
    }
  });

  test('refuses impossible counts', () => {
    const make = (options: object) => () => new BatchLoader(rows, { microBatchSize: 1, ...options });
    expect(make({ microBatchSize: 0 })).toThrow(/of 1 or more as microBatchSize, got 0/);
    expect(make({ dataParallelSize: 0 })).toThrow(/dataParallelSize/);
    expect(make({ dataParallelRank: 2, dataParallelSize: 2 })).toThrow(/from 0 to 1 as dataParallelRank, got 2/);
    expect(make({ consumedSamples: -1 })).toThrow(/consumedSamples/);
    expect(make({ consumedSamples: 0.5 })).toThrow(expect.objectContaining({ code: 'CONFIG' }));
  });
});
