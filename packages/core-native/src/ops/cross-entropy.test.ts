import { Random } from '../../csrc/kernels/common/cases';
import { cudaDevices, type DeviceName, device } from '../device';
import { Tensor } from '../tensor/tensor';
import { softmaxCrossEntropy } from './cross-entropy';

const makeTargets = (targets: number[], name: DeviceName = 'cpu'): Tensor =>
  Tensor.from(targets, [targets.length], { dtype: 'i32', device: name });

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => 3 * random.normal());
}

describe('softmaxCrossEntropy', () => {
  it('has the gradient of scale * sum of losses that finite differences show', async () => {
    const [R, V, scale, step] = [4, 9, 0.37, 1e-5];
    const logits = normals(R * V, 1);
    const targets = makeTargets([0, 8, -100, 3], 'ref');
    const at = (values: Float64Array): Tensor => Tensor.from(values, [R, V], { dtype: 'f64', device: 'ref' });
    const loss = async (values: Float64Array): Promise<number> => {
      const losses = await softmaxCrossEntropy(at(values), targets).losses.numbers();
      return losses.reduce((a, b) => a + b, 0) * scale;
    };
    const gradient = await softmaxCrossEntropy(at(logits), targets, { scale, gradient: 'new' }).dlogits!.numbers();
    for (let i = 0; i < R * V; i++) {
      const moved = (delta: number): Float64Array => logits.map((x, j) => (i === j ? x + delta : x));
      const difference = ((await loss(moved(step))) - (await loss(moved(-step)))) / (2 * step);
      expect(Math.abs(difference - gradient[i]!)).toBeLessThan(1e-9);
    }
  });

  it('puts the gradient in the place of the logits, with the same bits', async () => {
    const [R, V] = [5, 4500];
    for (const dtype of ['f32', 'bf16'] as const) {
      const logits = Tensor.from(normals(R * V, 2), [R, V], { dtype });
      const targets = makeTargets([0, 4499, 4096, -100, 17]);
      const apart = softmaxCrossEntropy(logits, targets, { gradient: 'new', scale: 0.2 });
      const kept = await logits.read();
      const inPlace = softmaxCrossEntropy(logits, targets, { gradient: 'in-place', scale: 0.2 });
      expect(await inPlace.dlogits!.read()).toEqual(await apart.dlogits!.read());
      expect(await inPlace.losses.read()).toEqual(await apart.losses.read());
      expect(await logits.read()).toEqual(await apart.dlogits!.read());
      expect(await logits.read()).not.toEqual(kept);
    }
  });

  const itOn = (name: DeviceName) => (name !== 'cuda:0' || cudaDevices().devices.length > 0 ? it : it.skip);
  for (const name of ['cpu', 'cuda:0'] as const)
    itOn(name)(`gives a row the same bits alone, among a few and among many, on ${name}`, async () => {
      // Few long rows are cut over threads, many are not.
      const [R, V] = [18, 34001];
      const values = Float32Array.from({ length: R * V }, (_, i) => (Math.imul(i, 0x9e3779b1) >> 8) * 2 ** -21);
      const targets = Array.from({ length: R }, (_, r) => (r * 7919) % V);
      const run = async (from: number, to: number): Promise<[Buffer, Buffer]> => {
        const logits = Tensor.from(values.subarray(from * V, to * V), [to - from, V], { device: name });
        const result = softmaxCrossEntropy(logits, makeTargets(targets.slice(from, to), name), {
          gradient: 'in-place',
        });
        const [losses, gradients] = [await result.losses.read(), await result.dlogits!.read()];
        return [Buffer.from(losses.buffer), Buffer.from(gradients.buffer)];
      };
      const [losses, gradients] = await run(0, R);
      for (const [from, to] of [
        [0, 1],
        [5, 8],
        [17, 18],
      ] as const) {
        const [l, g] = await run(from, to);
        expect(l.equals(losses.subarray(4 * from, 4 * to))).toBe(true);
        expect(g.equals(gradients.subarray(4 * from * V, 4 * to * V))).toBe(true);
      }
    });

  it('gives ignored rows loss 0 and gradient 0, whatever their logits', async () => {
    const logits = Tensor.from([Number.NaN, Infinity, 1, 2], [2, 2]);
    const { losses, dlogits } = softmaxCrossEntropy(logits, makeTargets([-100, -100]), { gradient: 'new' });
    expect([...(await losses.numbers())]).toEqual([0, 0]);
    expect([...(await dlogits!.numbers())]).toEqual([0, 0, 0, 0]);
    const other = softmaxCrossEntropy(logits, makeTargets([7, 0]), { ignoreIndex: 7 });
    expect((await other.losses.numbers())[0]).toBe(0);
  });

  it('takes -inf as a class of probability 0, and shows NaN and +inf in their own row only', async () => {
    const V = 5000;
    for (const name of ['cpu', 'ref'] as const) {
      const rows = [0, 1, 2, 3].map(() => new Float64Array(V).fill(-Infinity));
      rows[0]![4998] = rows[0]![4999] = 2; // two whole segments of -inf come first
      rows[1]!.fill(1)[4500] = Number.NaN;
      rows[2]!.fill(1)[2] = Infinity;
      rows[3]!.fill(7);
      const logits = Tensor.from(
        rows.flatMap((row) => [...row]),
        [4, V],
        { device: name },
      );
      const result = softmaxCrossEntropy(logits, makeTargets([4999, 0, 0, 1], name), { gradient: 'new' });
      const losses = await result.losses.numbers();
      expect(losses[0]).toBeCloseTo(Math.LN2, 6);
      expect([losses[1], losses[2]]).toEqual([Number.NaN, Number.NaN]);
      expect(losses[3]).toBeCloseTo(Math.log(V), 5);
      const gradient = await result.dlogits!.numbers();
      expect([gradient[0], gradient[4998], gradient[4999]]).toEqual([0, 0.5, -0.5]);
      expect(gradient[3 * V + 1]).toBeCloseTo(1 / V - 1, 6);
    }
  });

  it('does not overflow, and keeps the digits of a nearly certain row', async () => {
    const logits = Tensor.from([30000, 29990, 30000 - 2 ** -7, -1e30, 0, 1e30], [2, 3]);
    const losses = await softmaxCrossEntropy(logits, makeTargets([1, 2])).losses.numbers();
    expect(losses[0]).toBeCloseTo(10 + Math.log(1 + Math.exp(-10) + Math.exp(-(2 ** -7))), 5);
    expect(losses[1]).toBe(0);
  });

  it.each(['cpu', 'ref'] as const)('names a target that is no class, before it writes anything (%s)', async (name) => {
    const logits = Tensor.from([1, 2, 3, 4], [2, 2], { device: name });
    for (const bad of [2, -1]) {
      softmaxCrossEntropy(logits, makeTargets([0, bad], name), { gradient: 'in-place' });
      await expect(device(name).stream.join()).rejects.toThrow(
        `expected targets from 0 to 1 (V = 2), or -100 to ignore, got ${bad} at position 1`,
      );
    }
    expect([...(await logits.numbers())]).toEqual([1, 2, 3, 4]);
  });

  it('refuses shapes and dtypes that do not fit', () => {
    const logits = Tensor.empty([2, 3]);
    expect(() => softmaxCrossEntropy(logits, makeTargets([1]))).toThrow('expected [2] for targets, got [1]');
    expect(() => softmaxCrossEntropy(Tensor.empty([1, 2, 3]), makeTargets([1, 2]))).toThrow('[*, *] for logits');
    expect(() => softmaxCrossEntropy(logits, Tensor.empty([2]))).toThrow('expected i32 for targets, got f32');
  });
});
