/** The CUDA device as TypeScript sees it, on the emulated library. What its kernels compute is test/ops' matter. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { cudaDevices, Device, type DeviceName, device } from './device';
import { DsError } from './errors';
import { Graph } from './graph';
import { native } from './loader';
import { add, fill, scaleAdd } from './ops/elementwise';
import { Tensor } from './tensor/tensor';

const { devices, emulated } = cudaDevices();
const describeCuda = devices.length > 1 && emulated ? describe : describe.skip;
// With a sanitizer tensors come from malloc: there are no arenas whose memory could be counted or kept for a graph.
const itWithArenas = native.sanitized() ? it.skip : it;
const skipped = devices.length > 1 && emulated ? '' : ' (not built here)';

describeCuda(`CUDA devices${skipped}`, () => {
  it('hold what is written, in stream order, larger than the pinned ring', async () => {
    const gpu = device('cuda:0');
    const n = 12_000_000; // 46 MB: six chunks through 32 MB of pinned memory
    const values = Float32Array.from({ length: n }, (_, i) => i % 1_000_003);
    using x = Tensor.empty([n], { device: gpu });
    x.writeBytes(values);
    using part = x.view([5], n - 5);
    fill(part, -1);
    const back = await x.read();
    values.fill(-1, n - 5);
    expect(Buffer.compare(Buffer.from(back.buffer), Buffer.from(values.buffer))).toBe(0);
  });

  it('read small tensors many times over without mixing them up', async () => {
    const gpu = device('cuda:0');
    const tensors = Array.from({ length: 200 }, (_, i) => Tensor.from([i, i + 1], [2], { device: gpu }));
    for (const [i, t] of tensors.entries()) expect([...(await t.numbers())]).toEqual([i, i + 1]);
    for (const t of tensors) t.dispose();
  });

  it('wait for each other across streams and devices', async () => {
    const [gpu, second, cpu] = [device('cuda:0'), device('cuda:1'), device('cpu')];
    const side = gpu.createStream();
    using x = Tensor.from([1, 2, 3], [3], { device: gpu });
    side.wait(gpu.stream.record());
    gpu.withStream(side, () => scaleAdd(2, x, 0, x, x));
    gpu.stream.wait(side.record());
    scaleAdd(1, x, 1, x, x);
    using y = x.to(second);
    scaleAdd(10, y, 0, y, y);
    using z = y.to(cpu);
    scaleAdd(1, z, 1, z, z);
    using w = z.to('ref');
    using v = w.to(gpu);
    // What comes later on the source does not reach the copies.
    fill(x, 0);
    fill(y, 0);
    fill(z, 0);
    expect([...(await v.numbers())]).toEqual([80, 160, 240]);
  });

  itWithArenas('reuse freed memory in stream order, and give it back when they are told to', async () => {
    const gpu = new Device('cuda:1');
    const free = () => cudaDevices().devices[1]!.free;
    using first = Tensor.from(new Float32Array(4_000_000).fill(1), [4_000_000], { device: gpu });
    const temporary = add(first, first);
    temporary.dispose();
    using again = Tensor.empty([4_000_000], { device: gpu });
    fill(again, 3);
    using sum = add(first, again);
    const peak = gpu.account().peak;
    expect((await sum.numbers()).every((x) => x === 4)).toBe(true);
    expect(peak).toBeLessThan(4 * 4_000_000 * 4);
    const before = free();
    for (let i = 0; i < 3; i++) Tensor.empty([8_000_000], { device: gpu }).dispose();
    expect(free()).toBeLessThan(before);
    gpu.stream.trim();
    expect(free()).toBeGreaterThanOrEqual(before);
    expect((await sum.numbers()).every((x) => x === 4)).toBe(true);
  });

  itWithArenas('name the five largest owners when the memory ends, and go on with less', async () => {
    // In a process of its own: the size of an emulated device cannot change once it is in use.
    const source = `
      const { native } = require(${JSON.stringify(path.join(__dirname, '../dist/loader.js'))});
      native.cuda_emulate(1, 1, 64 * 2 ** 20, 0);
      const { Tensor, device, withOwner, fill } = require(${JSON.stringify(path.join(__dirname, '../dist/index.js'))});
      const gpu = device('cuda:0');
      const make = (owner, mb) => withOwner(owner, () => Tensor.empty([mb * 2 ** 18], { device: gpu }));
      const held = [['a', 2], ['b', 4], ['c', 6], ['d', 8], ['e', 10], ['f', 3]].map(([owner, mb]) => make(owner, mb));
      // Another stream's arena holds memory that nobody uses: it is given back before anybody is refused.
      gpu.withStream(gpu.createStream(), () => make('other', 20).dispose());
      const large = make('fits', 24);
      fill(large, 2);
      try { make('g', 20); console.log('no error'); } catch (e) { console.log(JSON.stringify({ code: e.code, message: e.message })); }
      const small = make('g', 4);
      fill(small, 7);
      small.numbers().then((x) => console.log(x.length, x.every((y) => y === 7)));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', source], { encoding: 'utf8', env: process.env });
    expect(stderr).toBe('');
    const [first, second] = stdout.trim().split('\n');
    const { code, message } = JSON.parse(first!);
    expect(code).toBe('OOM');
    const mb = 2 ** 20;
    expect(message).toContain(`fits ${24 * mb}, e ${10 * mb}, d ${8 * mb}, c ${6 * mb}, b ${4 * mb};`);
    expect(message).toMatch(/ds plan/);
    expect(second).toBe(`${4 * 2 ** 18} true`);
  });

  itWithArenas('replay a graph on new inputs, beside other work', async () => {
    const gpu = device('cuda:0');
    using x = Tensor.from([1, 2], [2], { device: gpu });
    const captured = Graph.capture(gpu, () => {
      const twice = add(x, x);
      return { out: add(twice, x) };
    });
    using graph = captured.graph;
    using out = captured.result.out;
    for (const value of [1, 5, -2]) {
      x.write([value, value + 1]);
      graph.launch();
      // Work that takes memory between replays must not be given the graph's.
      using other = add(x, x);
      fill(other, 1000);
      expect([...(await out.numbers())]).toEqual([3 * value, 3 * value + 3]);
    }
    expect(() => Graph.capture(device('cpu'), () => undefined)).toThrow(/expected a CUDA device, got cpu/);
  });

  itWithArenas('tell of a failed launch at the join, and work again', async () => {
    const gpu = device('cuda:0');
    const bad = Graph.capture(gpu, () => Tensor.empty([1], { device: gpu }));
    using tensor = bad.result;
    bad.graph.dispose();
    expect(() => bad.graph.launch()).toThrow(/disposed/);
    fill(tensor, 4);
    expect(await tensor.item()).toBe(4);
  });
});

describe('without a GPU', () => {
  const index = path.join(__dirname, '../dist/index.js');
  const run = (library: string | undefined, script: string) => {
    const { DS_CUDA_LIBRARY: _, ...env } = process.env;
    const given = library === undefined ? {} : { DS_CUDA_LIBRARY: library };
    const source = `const ds = require(${JSON.stringify(index)});${script}`;
    return spawnSync(process.execPath, ['-e', source], { encoding: 'utf8', env: { ...env, ...given } });
  };
  const ask = "try { ds.device('cuda:0') } catch (e) { console.log(e.code, e.message) }";

  it.each([
    ['no library', '/nowhere/ds-core-cuda.so', /DEVICE.*got cuda:0.*No GPU can be used: .*nowhere.*ds doctor/],
    ['a library that is none of ours', '/lib/x86_64-linux-gnu/libm.so.6', /is not a CUDA library of this build/],
  ])('%s is named, and everything else works', (_, library, pattern) => {
    const { stdout, stderr } = run(
      library,
      `${ask}; ds.Tensor.from([1, 2], [2]).numbers().then((x) => console.log(...x));`,
    );
    expect(stderr).toBe('');
    expect(stdout.split('\n')[0]).toMatch(pattern);
    expect(stdout.split('\n')[1]).toBe('1 2');
  });
});

describe('names of devices', () => {
  it.each(['cuda:', 'cuda:99', 'cuda:-1', 'gpu', 'CPU'])('%s is refused by name', (name) => {
    const error = ((): unknown => {
      try {
        return device(name as DeviceName);
      } catch (e) {
        return e;
      }
    })();
    expect(DsError.is(error) && error.code).toBe('DEVICE');
    expect(String(error)).toMatch(/expected one of cpu, ref, null/);
  });
});
