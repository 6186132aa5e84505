/** What the kernels refuse of a layout's lists, which only they can read. */
import { computingDevices } from '../../../../test/support/devices';
import { device } from '../device';
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';

/** Two heads with a layout each, of 2 x 2 blocks: the diagonal, and all. */
const good = {
  headLayout: [0, 1],
  rowStart: [0, 1, 2, 2, 4, 6],
  columns: [0, 1, 0, 1, 0, 1],
  columnStart: [0, 1, 2, 2, 4, 6],
  rows: [0, 1, 0, 1, 0, 1],
  places: [0, 1, 2, 4, 3, 5],
};

const bad: [string, Partial<typeof good>][] = [
  ['a known layout for every head', { headLayout: [0, 2] }],
  ['a known layout for every head', { headLayout: [-1, 0] }],
  ['rising starts', { rowStart: [0, -1, 2, 2, 4, 6] }],
  ['rising starts', { columnStart: [0, 1, 2, 2, 4, 7] }],
  ['lists that ascend inside the sequence', { columns: [0, 1, 1, 1, 0, 1] }],
  ['lists that ascend inside the sequence', { rows: [0, 1, 0, 2, 0, 1] }],
  ['lists that ascend inside the sequence', { columns: [0, -1, 0, 1, 0, 1] }],
  ['places inside their layout', { places: [0, 1, 2, 4, 3, 6] }],
  ['places inside their layout', { places: [0, 2, 2, 4, 3, 5] }],
];

async function run(name: string, lists: typeof good, op: 'block_dsd' | 'block_softmax', blocks = 6): Promise<Tensor> {
  const options = { device: device(name as 'cpu') };
  const ints = (values: readonly number[], shape: readonly number[]): number =>
    Tensor.from(values, shape, { ...options, dtype: 'i32' }).id;
  const starts = [2, 3];
  const ids = [
    ints(lists.headLayout, [2]),
    ints(lists.rowStart, starts),
    ints(lists.columns, [6]),
    ints(lists.columnStart, starts),
    ints(lists.rows, [6]),
    ints(lists.places, [6]),
  ] as const;
  const s = Tensor.from(new Float64Array(blocks * 256).fill(1), [1, blocks, 16, 16], options);
  const y = Tensor.from(new Float64Array(2 * 32 * 4).fill(7), [1, 2, 32, 4], options);
  const stream = options.device.stream.id;
  if (op === 'block_dsd') {
    const b = Tensor.from(new Float64Array(2 * 32 * 4).fill(1), [1, 2, 32, 4], options);
    native.block_dsd(stream, y.id, s.id, b.id, ...ids, 16, true, false);
  } else {
    native.block_softmax(stream, s.id, s.id, ...ids, 16, 0, 0, 1, false);
  }
  await options.device.stream.join();
  return op === 'block_dsd' ? y : s;
}

describe.each(computingDevices)('the lists of a layout on %s', (name) => {
  it('are taken where they are right', async () => {
    const y = [...(await (await run(name, good, 'block_dsd')).numbers())];
    // A head that sees its own block sums 16 ones, one that sees all 32.
    expect(y.slice(0, 128).every((x) => x === 16)).toBe(true);
    expect(y.slice(128).every((x) => x === 32)).toBe(true);
  });

  it.each(bad)('are refused without %s', async (rule, change) => {
    for (const op of ['block_dsd', 'block_softmax'] as const)
      await expect(run(name, { ...good, ...change }, op)).rejects.toThrow(
        `${op}: expected a block layout with ${rule}, got another one`,
      );
  });

  it('must have as many blocks as the matrix', async () => {
    for (const op of ['block_dsd', 'block_softmax'] as const)
      await expect(run(name, good, op, 5)).rejects.toThrow(
        `${op}: expected 6 blocks, those of the layout, got 5. pass the s of block_sdd`,
      );
  });
});
