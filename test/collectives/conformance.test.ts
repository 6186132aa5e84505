/** What every collective back end must do: run with each way that bytes can travel, and each number of ranks. */
import { cudaDevices } from '@ds/core-native';
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

const onHost: BackEnd[] = [
  { name: 'shared memory, pulled', transport: pulled, args: { options: { transport: 'pulled' } } },
  { name: 'shared memory, staged', transport: staged, args: { options: { transport: 'staged' } } },
  {
    name: 'shared memory, staged in small chunks',
    transport: staged,
    args: { options: { transport: 'staged', chunkBytes: 4096 }, count: 250 },
  },
  {
    name: 'shared memory, with random delays',
    transport: pulled,
    args: { options: { jitterMicros: 300 }, count: 200 },
  },
  {
    name: 'shared memory, one call at a time (DS_SYNC=1)',
    transport: pulled,
    args: { count: 200 },
    env: { DS_SYNC: '1' },
  },
  { name: 'shared memory, on the ref device', transport: pulled, args: { device: 'ref', count: 200 } },
];

// NCCL: a stand-in of ours over the emulated device, or NVIDIA's where there is a GPU a rank.
const cuda = cudaDevices();
const mostRanks = cuda.emulated ? 4 : cuda.devices.length;
const ofNccl = { exact: 'sums in order of ranks', unordered: "sums in NCCL's own order" };
const gpu = (sums: keyof typeof ofNccl, transport: string, more: object = {}): BackEnd['args'] => ({
  device: 'cuda',
  options: { transport },
  unordered: sums === 'unordered',
  count: 250,
  ...more,
});
const onGpu: BackEnd[] = [
  { name: 'NCCL', transport: ofNccl.exact, args: gpu('exact', 'nccl') },
  { name: 'NCCL, its own sums', transport: ofNccl.unordered, args: gpu('unordered', 'nccl_unordered') },
  {
    name: 'NCCL, one call at a time (DS_SYNC=1)',
    transport: ofNccl.exact,
    args: gpu('exact', 'nccl', { count: 100 }),
    env: { DS_SYNC: '1' },
  },
  {
    name: 'NCCL that takes its time',
    transport: ofNccl.exact,
    args: gpu('exact', 'nccl', { count: 100 }),
    env: { DS_FAKE_NCCL: 'busy=3' },
  },
].filter(({ env }) => cuda.emulated || env?.DS_FAKE_NCCL === undefined);
const withRanks = (backEnds: BackEnd[], ranks: number[]) =>
  backEnds.flatMap((backEnd) => ranks.map((world) => ({ ...backEnd, world })));
const rows = [
  ...withRanks(onHost, [1, 2, 3, 4]),
  ...withRanks(
    onGpu,
    [1, 2, 3, 4].filter((world) => world <= mostRanks),
  ),
];

describe('random calls', () => {
  it.each(rows)(
    '$name: the reference on $world ranks',
    async ({ world, transport, args, env = {} }) => {
      const count = world === 2 || world === 3 ? 1000 : 400;
      const reports = await runRanks('conformance', world, { seed: 77 + world, count, ...args }, { env });
      const right = { wrong: [], transport: expect.stringContaining(transport), live: 0 };
      expect(reports).toEqual(Array.from({ length: world }, (_, rank) => ({ rank, value: right })));
    },
    MINUTE,
  );
});

const large = [...onHost.slice(0, 2), ...onGpu.slice(0, 1)];

describe.each(large)('$name', ({ name, args }) => {
  it.each(name === 'NCCL' ? [2, 3].filter((world) => world <= mostRanks) : [2, 3])(
    'moves tensors larger than its blocks, its slots and the caches on %i ranks',
    async (world) => {
      const elements = name !== 'shared memory, staged' && world === 2 ? 8_500_001 : 1_500_001;
      const reports = await runRanks<Record<string, number>>('large', world, { elements, ...args });
      const right = { allReduce: -1, reduceScatter: -1, allGather: -1, message: -1 };
      for (const { value } of reports) expect(value).toMatchObject(right);
      expect(reports).toHaveLength(world);
    },
    MINUTE,
  );

  const four = name === 'NCCL' && mostRanks < 4 ? it.skip : it;
  four(
    'keeps groups apart that work at the same time on two streams',
    async () => {
      const splits = 60;
      const reports = await runRanks('groups', 4, { steps: 50, splits, ...args });
      const common = { wrong: [], parts: splits };
      expect(reports.map(({ value }) => value)).toEqual([
        { ...common, row: ['0', '1'], column: ['2', '0'], none: [] },
        { ...common, row: ['0', '1'], column: ['3', '1'], none: ['1', '2', '3'] },
        { ...common, row: ['2', '3'], column: ['2', '0'], none: ['1', '2', '3'] },
        { ...common, row: ['2', '3'], column: ['3', '1'], none: ['1', '2', '3'] },
      ]);
    },
    60_000,
  );
});

describe('the counters', () => {
  interface Counted {
    calls: number;
    elements: number;
    bytes: number;
    byPrimitive: Record<string, { calls: number; elements: number; bytes: number }>;
  }

  const devices = [...withRanks(onHost.slice(0, 1), [1, 2, 3, 4]), ...withRanks(onGpu.slice(0, 2), [1, 2, 3, 4])];
  it.each(devices.filter(({ name, world }) => !name.startsWith('NCCL') || world <= mostRanks))(
    'hold what a ring sends, exactly, and the plan says the same: $name, $world ranks',
    async ({ world: N, args }) => {
      type Value = { real: Counted; plan: Counted; afterReset: number };
      const reports = await runRanks<Value>('counters', N, args);
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
