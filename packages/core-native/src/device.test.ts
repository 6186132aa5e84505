import { Worker } from 'node:worker_threads';
import { device } from './device';
import { DsError } from './errors';
import { add, fill, scaleAdd } from './ops/elementwise';
import { embedding } from './ops/embedding';
import { Tensor } from './tensor/tensor';

/** Keeps a stream busy for a while: about 10 ms a round. */
function delay(rounds: number): Tensor {
  const t = Tensor.from(new Float32Array(4_000_000), [4_000_000]);
  for (let i = 0; i < rounds; i++) scaleAdd(1, t, 1, t, t);
  return t;
}

describe('streams', () => {
  const cpu = device('cpu');

  it('run in order, and another stream waits for an event of theirs', async () => {
    const side = cpu.createStream();
    using t = Tensor.from([1], [1]);
    using busy = delay(5);
    fill(t, 5);
    side.wait(cpu.stream.record());
    cpu.withStream(side, () => add(t, t, t));
    cpu.stream.wait(side.record());
    fill(busy, 0);
    add(t, t, t);
    expect(await t.item()).toBe(20);
  });

  it('leave the event loop free while they work', async () => {
    using _busy = delay(20);
    const order: string[] = [];
    setImmediate(() => order.push('event loop'));
    await cpu.stream.join();
    order.push('work done');
    expect(order).toEqual(['event loop', 'work done']);
  });

  it('report an error at the next join, skip what came behind it, and work again', async () => {
    using table = Tensor.from([1, 2, 3, 4], [2, 2]);
    using ids = Tensor.from([0, 7], [2], { dtype: 'i32' });
    using t = Tensor.from([1], [1]);
    await cpu.stream.join();
    using _bad = embedding(ids, table);
    fill(t, 99);
    await expect(cpu.stream.join()).rejects.toThrow(/7/);
    expect(await t.item()).toBe(1);
    fill(t, 3);
    expect(await t.item()).toBe(3);
  });

  it('fail where they wait for a stream that failed', async () => {
    const side = cpu.createStream();
    using table = Tensor.from([1, 2], [1, 2]);
    using ids = Tensor.from([5], [1], { dtype: 'i32' });
    using _bad = embedding(ids, table);
    side.wait(cpu.stream.record());
    const error = await side.join().catch((e: unknown) => e);
    expect(DsError.is(error) && error.op).toBe('embedding');
    await expect(cpu.stream.join()).rejects.toThrow();
  });

  it('live in every worker thread for themselves', async () => {
    const source = `
      const { parentPort, workerData } = require('node:worker_threads');
      const native = require(workerData);
      native.initialize(Error);
      const stream = native.create_stream(0);
      const id = native.allocate(stream, 0, native.owner_id(0, 'w'), 3);
      native.fill(stream, id, 7);
      native.read(stream, id).then((b) => parentPort.postMessage([...new Float32Array(b), native.live_tensors()]));`;
    const finder = require('node-gyp-build') as { path(dir: string): string };
    const binary = process.env.DS_NATIVE_PATH ?? finder.path(`${__dirname}/..`);
    const answers = await Promise.all(
      Array.from({ length: 4 }, () => {
        const worker = new Worker(source, { eval: true, workerData: binary });
        return new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
      }),
    );
    expect(answers).toEqual(Array.from({ length: 4 }, () => [7, 7, 7, 1]));
  });
});

describe('devices', () => {
  it('are refused by name when there are none of them', () => {
    expect(() => device('cuda:99')).toThrow(/expected one of cpu, ref, null.*got cuda:99/);
  });

  it('do not mix in one op', () => {
    using a = Tensor.empty([1], { device: 'cpu' });
    using b = Tensor.empty([1], { device: 'ref' });
    expect(() => add(a, b)).toThrow(/all tensors on cpu, got one on ref/);
  });

  it('that only count refuse to be read', async () => {
    using t = Tensor.empty([1], { device: 'null' });
    await expect((async () => t.read())()).rejects.toThrow(/the null device/);
  });
});
