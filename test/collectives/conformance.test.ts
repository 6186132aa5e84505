/** What every collective back end must do: run with each way that bytes can travel, and each number of ranks. */
import { runRanks } from './run-ranks';

const MINUTE = 60_000;

interface BackEnd {
  name: string;
  transport: string;
  args: object;
  env?: Record<string, string>;
}

const pulled = 'shared memory, single copy';
const staged = 'shared memory, staged';

const backEnds: BackEnd[] = [
  { name: 'pulled', transport: pulled, args: { options: { transport: 'pulled' } } },
  { name: 'staged', transport: staged, args: { options: { transport: 'staged' } } },
  {
    name: 'staged in small chunks',
    transport: staged,
    args: { options: { transport: 'staged', chunkBytes: 4096 }, count: 250 },
  },
  { name: 'with random delays', transport: pulled, args: { options: { jitterMicros: 300 }, count: 200 } },
  { name: 'one call at a time (DS_SYNC=1)', transport: pulled, args: { count: 200 }, env: { DS_SYNC: '1' } },
  { name: 'on the ref device', transport: pulled, args: { device: 'ref', count: 200 } },
];

describe.each(backEnds)('shared memory, $name', ({ transport, args, env = {} }) => {
  it.each([1, 2, 3, 4])(
    'gives the bits of the reference for random calls on %i ranks',
    async (world) => {
      const reports = await runRanks(
        'conformance',
        world,
        {
          seed: 77 + world,
          count: world === 2 || world === 3 ? 1000 : 400,
          ...args,
        },
        { env },
      );
      expect(reports).toEqual(
        Array.from({ length: world }, (_, rank) => ({ rank, value: { wrong: [], transport, live: 0 } })),
      );
    },
    MINUTE,
  );
});

describe.each(backEnds.slice(0, 2))('shared memory, $name', ({ name, args }) => {
  it.each([2, 3])(
    'moves tensors larger than its blocks, its slots and the caches on %i ranks',
    async (world) => {
      const elements = name === 'pulled' && world === 2 ? 8_500_001 : 1_500_001;
      const reports = await runRanks<Record<string, number>>('large', world, { elements, ...args });
      const right = { allReduce: -1, reduceScatter: -1, allGather: -1, message: -1 };
      for (const { value } of reports) expect(value).toMatchObject(right);
      expect(reports).toHaveLength(world);
    },
    MINUTE,
  );

  it('keeps groups apart that work at the same time on two streams', async () => {
    const splits = 60;
    const reports = await runRanks('groups', 4, { steps: 50, splits, ...args });
    const common = { wrong: [], parts: splits };
    expect(reports.map(({ value }) => value)).toEqual([
      { ...common, row: ['0', '1'], column: ['2', '0'], none: [] },
      { ...common, row: ['0', '1'], column: ['3', '1'], none: ['1', '2', '3'] },
      { ...common, row: ['2', '3'], column: ['2', '0'], none: ['1', '2', '3'] },
      { ...common, row: ['2', '3'], column: ['3', '1'], none: ['1', '2', '3'] },
    ]);
  }, 60_000);
});

describe('the counters', () => {
  interface Counted {
    calls: number;
    elements: number;
    bytes: number;
    byPrimitive: Record<string, { calls: number; elements: number; bytes: number }>;
  }

  it.each([1, 2, 3, 4])(
    'hold what a ring sends, exactly, on %i ranks, and the plan says the same',
    async (N) => {
      type Value = { real: Counted; plan: Counted; afterReset: number };
      const reports = await runRanks<Value>('counters', N);
      reports.forEach((report, rank) => {
        const { real, plan, afterReset } = report.value!;
        const share = (N - 1) / N;
        const root = rank === 0 && N > 1;
        const { exchange, ...data } = real.byPrimitive;
        const rows = {
          allReduce: [2, 2 * share * (7 + 10), 2 * share * 7 * 4 + share * 10 * (2 + 4)],
          reduceScatter: [2, share * 10 * N, share * 10 * N * 2],
          allGather: [1, share * 3 * N, share * 3 * N * 2],
          broadcast: [1, root ? 11 : 0, root ? 11 : 0],
          allToAll: [1, share * 2 * N, share * 2 * N * 8],
          send: root ? [1, 9, 36] : [0, 0, 0],
          recv: [N > 1 && rank === 1 ? 1 : 0, 0, 0],
          barrier: [1, 0, 0],
        };
        for (const [name, [calls, elements, bytes]] of Object.entries(rows)) {
          expect([name, data[name]!.calls]).toEqual([name, calls]);
          expect(data[name]!.elements).toBeCloseTo(elements!, 9);
          expect(data[name]!.bytes).toBeCloseTo(bytes!, 9);
        }
        const total = Object.values(data).reduce((sum, row) => sum + row.bytes, 0);
        expect(real.bytes).toBe(total);
        expect(exchange!.calls).toBe(2);
        expect(plan).toEqual({ ...real, byPrimitive: { ...data, exchange: { calls: 0, elements: 0, bytes: 0 } } });
        expect(afterReset).toBe(0);
      });
    },
    30_000,
  );
});
