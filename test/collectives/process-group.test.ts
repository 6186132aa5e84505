/** What a group refuses, and what it does alone. */
import { type DsErrorFields, device, ProcessGroup, Tensor } from '@ds/core-native';

const group = ProcessGroup.null(4, 1);
const made: Tensor[] = [];
const make = (shape: number[], dtype: 'f32' | 'bf16' | 'f64' | 'i32' = 'f32') => {
  made.push(Tensor.empty(shape, { dtype, device: 'null' }));
  return made.at(-1)!;
};

// Other test files of the same process count what lives on this device.
afterAll(() => {
  for (const tensor of made) tensor.dispose();
});

describe('a call that cannot be right', () => {
  const cases: [text: string, call: () => void, error: Partial<DsErrorFields>][] = [
    [
      'allReduce of two sizes',
      () => group.allReduce(make([4]), make([5])),
      { code: 'SHAPE', op: 'allReduce', expected: '5 elements for out', actual: '[4]' },
    ],
    [
      'reduceScatter of a full that is not N shards',
      () => group.reduceScatter(make([2, 2]), make([15])),
      {
        code: 'SHAPE',
        op: 'reduceScatter',
        expected: '16 elements for full',
        actual: '[15]',
        hint: 'full is 4 shards, one a rank: pad to a multiple of 4',
      },
    ],
    [
      'allGather into another dtype',
      () => group.allGather(make([8]), make([2], 'bf16')),
      { code: 'DTYPE', op: 'allGather', expected: 'f32 for shard', actual: 'bf16' },
    ],
    [
      'a sum of integers',
      () => group.allReduce(make([2], 'i32'), make([2], 'i32')),
      { code: 'DTYPE', op: 'allReduce', actual: 'i32' },
    ],
    [
      'a result narrower than the input',
      () => group.reduceScatter(make([2], 'bf16'), make([8], 'f32')),
      { code: 'DTYPE', op: 'reduceScatter', expected: 'f32 for the result', actual: 'bf16' },
    ],
    [
      'allToAll of a size that does not divide',
      () => group.allToAll(make([6]), make([6])),
      { code: 'SHAPE', op: 'allToAll', expected: 'a multiple of 4 elements for input', actual: '[6]' },
    ],
    [
      'a root that is no rank',
      () => group.broadcast(make([1]), 4),
      { code: 'CONFIG', op: 'broadcast', expected: 'a rank from 0 to 3 for root', actual: '4' },
    ],
    [
      'a message to oneself',
      () => group.send(make([1]), 1),
      { code: 'CONFIG', op: 'send', expected: 'a rank from 0 to 3 other than this one for to', actual: '1' },
    ],
    [
      'tensors of two devices',
      () => group.allReduce(make([1]), Tensor.empty([1])),
      { code: 'DEVICE', op: 'allReduce' },
    ],
  ];

  it.each(cases)('is refused when it is made: %s', (_, call, error) => {
    expect(call).toThrow(expect.objectContaining(error));
  });

  it('fails on the stream when a group that only counts is given data', async () => {
    const data = Tensor.empty([1]);
    group.allReduce(data, data);
    data.dispose();
    await expect(device('cpu').stream.join()).rejects.toMatchObject({ code: 'DEVICE', op: 'allReduce' });
  });

  it('is refused when tensors overlap in another way than in place', () => {
    using alone = ProcessGroup.single();
    const whole = Tensor.empty([6]);
    expect(() => alone.allReduce(whole.view([4], 1), whole.view([4]))).toThrow(
      expect.objectContaining({ code: 'SHAPE', op: 'allReduce' }),
    );
    expect(() => alone.allToAll(whole, whole)).toThrow(expect.objectContaining({ code: 'SHAPE', op: 'allToAll' }));
    whole.dispose();
  });

  it.each([{ transport: 'tcp' }, { chunkBytes: 100 }, { timeoutMs: 0 }, { jitterMicros: -1 }])(
    'is refused for %j',
    (options) => {
      expect(() => ProcessGroup.single(options as object)).toThrow(expect.objectContaining({ code: 'CONFIG' }));
    },
  );
});

describe('a group of one', () => {
  it('is what a program gets that was started alone', async () => {
    using alone = await ProcessGroup.fromEnvironment();
    expect([alone.rank, alone.size]).toEqual([0, 1]);
    expect(await alone.exchange('just me')).toEqual(['just me']);
  });

  it('scales and rounds like any other', async () => {
    using alone = ProcessGroup.single();
    const x = Tensor.from([1, -3, 0.3], [3], { dtype: 'bf16' });
    const y = Tensor.empty([3]);
    alone.allReduce(y, x, { scale: 1 / 3 });
    const bf16 = 0.30078125;
    expect([...(await y.numbers())]).toEqual([1, -3, bf16].map((v) => Math.fround(v * Math.fround(1 / 3))));
    for (const t of [x, y]) t.dispose();
  });

  it('says so when it is used after destroy', () => {
    const alone = ProcessGroup.single();
    alone.destroy();
    const x = Tensor.empty([1]);
    expect(() => alone.allReduce(x, x)).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    x.dispose();
  });

  it('splits into groups of one and of none', async () => {
    using alone = ProcessGroup.single();
    using part = (await alone.split(3))!;
    expect([part.rank, part.size]).toEqual([0, 1]);
    expect(await alone.split(undefined)).toBeUndefined();
    await expect(alone.split(-2)).rejects.toMatchObject({ code: 'CONFIG' });
  });
});

describe('a null group', () => {
  it('counts for any rank of any size what it is asked to send', () => {
    const plan = ProcessGroup.null(7, 3);
    plan.allReduce(make([10]), make([10]));
    plan.allGather(make([70], 'bf16'), make([10], 'bf16'));
    plan.broadcast(make([5]), 0);
    const { allReduce, allGather, broadcast } = plan.counters().byPrimitive;
    expect(allReduce).toEqual({ calls: 1, elements: 120 / 7, bytes: 480 / 7 });
    expect(allGather).toEqual({ calls: 1, elements: 60, bytes: 120 });
    expect(broadcast).toEqual({ calls: 1, elements: 0, bytes: 0 });
  });

  it('takes every rank to say the same', async () => {
    expect(await ProcessGroup.null(3).exchange('plan')).toEqual(['plan', 'plan', 'plan']);
    expect(() => ProcessGroup.null(3, 3)).toThrow(expect.objectContaining({ code: 'CONFIG' }));
  });
});
