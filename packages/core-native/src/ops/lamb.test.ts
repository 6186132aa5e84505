import { Random } from '../../csrc/kernels/common/cases';
import { cpuFeatures, setThreads, threads } from '../index';
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { type LambMoments, lambMoments, lambStep } from './lamb';

type State = Pick<LambMoments, 'p' | 'm' | 'v' | 'squares'>;

function start(p: ArrayLike<number>, device: 'cpu' | 'ref' = 'cpu'): State {
  const zeros = () => Tensor.from(new Float64Array(p.length), [p.length], { device });
  const squares = Tensor.empty([2], { dtype: 'f64', device });
  return { p: Tensor.from(p, [p.length], { device }), m: zeros(), v: zeros(), squares };
}

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

/** LAMB as it is written, on one parameter in f64. */
function plainLamb(p: Float64Array, steps: readonly Float64Array[], lr: number, decay: number): Float64Array {
  const [m, v] = [new Float64Array(p.length), new Float64Array(p.length)];
  steps.forEach((grad, t) => {
    const u = grad.map((g, i) => {
      m[i] = 0.9 * m[i]! + (1 - 0.9) * g;
      v[i] = 0.999 * v[i]! + (1 - 0.999) * g * g;
      return m[i]! / (Math.sqrt(v[i]!) + 1e-8) + decay * p[i]!;
    });
    const trust = Math.min(10, Math.max(0.01, Math.hypot(...p) / Math.hypot(...u)));
    const rate = (lr * Math.sqrt(1 - 0.999 ** (t + 1))) / (1 - 0.9 ** (t + 1));
    p.forEach((_, i) => {
      p[i]! -= rate * trust * u[i]!;
    });
  });
  return p;
}

describe('lambMoments and lambStep', () => {
  it('equal the formula, written out in f64, over 5 steps', async () => {
    const n = 331;
    const weights = normals(n, 1).map(Math.fround);
    const steps = [11, 12, 13, 14, 15].map((seed) => normals(n, seed).map(Math.fround));
    const state = start(weights);
    for (const [t, grad] of steps.entries()) {
      lambMoments({ ...state, grad: Tensor.from(grad, [n]), weightDecay: 0.1 });
      lambStep({ ...state, step: t + 1, lr: 3e-3, weightDecay: 0.1 });
    }
    const expected = plainLamb(weights.slice(), steps, 3e-3, 0.1);
    (await state.p.numbers()).forEach((p, i) => {
      expect(Math.abs(p - expected[i]!)).toBeLessThan(1e-6);
    });
    expect(Math.abs(expected[0]! - weights[0]!)).toBeGreaterThan(1e-3);
  });

  it.each([
    // Norms of p and u: 2 and 1, so that the ratio is 2.
    ['between its bounds', 2, { minCoefficient: 0.01, maxCoefficient: 10 }],
    ['at the upper one', 1.5, { minCoefficient: 0.01, maxCoefficient: 1.5 }],
    ['at the lower one', 3, { minCoefficient: 3, maxCoefficient: 10 }],
  ] as const)('takes a trust ratio %s', async (_name, trust, bounds) => {
    for (const device of ['cpu', 'ref'] as const) {
      const state = start([2, 0], device);
      // Betas of 0: m is the gradient, v its square, and u the sign.
      const plain = { betas: [0, 0], eps: 0, weightDecay: 0 } as const;
      lambMoments({ ...state, ...plain, eps: 1e-30, grad: Tensor.from([4, 0], [2], { device }) });
      expect([...(await state.squares.numbers())]).toEqual([4, 1]);
      lambStep({ ...state, ...plain, eps: 1e-30, ...bounds, step: 1, lr: 0.25 });
      expect([...(await state.p.numbers())]).toEqual([2 - 0.25 * trust, 0]);
    }
  });

  it('takes a trust ratio of 1 where a norm is 0', async () => {
    for (const device of ['cpu', 'ref'] as const) {
      const zeros = start([0, 0], device);
      lambMoments({ ...zeros, betas: [0, 0], eps: 1e-30, grad: Tensor.from([4, -4], [2], { device }) });
      lambStep({ ...zeros, betas: [0, 0], eps: 1e-30, step: 1, lr: 0.25, maxCoefficient: 0.1 });
      expect([...(await zeros.p.numbers())]).toEqual([-0.25, 0.25]);
      const still = start([3, 4], device);
      lambMoments({ ...still, grad: Tensor.from([0, 0], [2], { device }) });
      expect([...(await still.squares.numbers())]).toEqual([25, 0]);
      lambStep({ ...still, step: 1, lr: 0.25 });
      expect([...(await still.p.numbers())]).toEqual([3, 4]);
    }
  });

  it('adds up the pieces of a parameter, also an empty one', async () => {
    const [p, grad] = [normals(9001, 5), normals(9001, 6)];
    const whole = start(p);
    lambMoments({ ...whole, grad: Tensor.from(grad, [9001]) });
    const cut = start(p);
    const pieces = [
      [0, 0],
      [0, 5],
      [5, 9001],
    ] as const;
    for (const [i, [from, to]] of pieces.entries()) {
      const part = (t: Tensor): Tensor => t.view([to - from], from);
      const parts = { p: part(cut.p), m: part(cut.m), v: part(cut.v), squares: cut.squares };
      lambMoments({ ...parts, grad: part(Tensor.from(grad, [9001])), accumulate: i > 0 });
    }
    expect(await cut.m.read()).toEqual(await whole.m.read());
    expect(await cut.v.read()).toEqual(await whole.v.read());
    const [sums, expected] = [await cut.squares.numbers(), await whole.squares.numbers()];
    for (const i of [0, 1]) expect(Math.abs(sums[i]! / expected[i]! - 1)).toBeLessThan(1e-12);
  });

  it('gives the same bits on every instruction set and for any number of threads', async () => {
    const n = 17001;
    const { isa: best, supported } = cpuFeatures();
    const allThreads = threads();
    const grad = Tensor.from(normals(n, 3), [n], { dtype: 'bf16' });
    const run = async (): Promise<Buffer> => {
      const state = start(normals(n, 2));
      const copy = Tensor.empty([n], { dtype: 'bf16' });
      for (let step = 1; step <= 3; step++) {
        lambMoments({ ...state, grad, weightDecay: 0.1, gradScale: 1 / 3 });
        lambStep({ ...state, copy, step, lr: 1e-2, weightDecay: 0.1 });
      }
      const parts = await Promise.all([state.p, state.m, state.v, state.squares, copy].map((t) => t.read()));
      return Buffer.concat(parts.map((part) => new Uint8Array(part.buffer)));
    };
    const first = await run();
    for (const isa of supported)
      for (const count of [1, 3]) {
        native.set_isa(isa);
        setThreads(count);
        expect((await run()).equals(first)).toBe(true);
      }
    native.set_isa(best);
    setThreads(allThreads);
  });

  it('does not count what is behind the end of a piece, with eps 0 either', async () => {
    const state = start([3, 4, 12]);
    lambMoments({ ...state, betas: [0, 0], eps: 0, grad: Tensor.from([1, -2, 4], [3]) });
    expect([...(await state.squares.numbers())]).toEqual([169, 3]);
  });

  it('lets a gradient that is not finite show in the whole parameter', async () => {
    const state = start([1, 1, 1]);
    lambMoments({ ...state, grad: Tensor.from([1, Number.NaN, 1], [3]) });
    lambStep({ ...state, step: 1, lr: 0.1 });
    expect([...(await state.p.numbers())]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
  });

  it('says what does not fit', () => {
    const state = start([1, 2]);
    const grad = Tensor.empty([2]);
    expect(() => lambMoments({ ...state, grad: Tensor.empty([3]) })).toThrow(
      'lamb_moments: expected [2] for grad, got [3]',
    );
    expect(() => lambMoments({ ...state, grad, squares: Tensor.empty([2]) })).toThrow(
      'expected f64 for squares, got f32',
    );
    expect(() => lambMoments({ ...state, grad, squares: Tensor.empty([1], { dtype: 'f64' }) })).toThrow(
      '[2] for squares',
    );
    expect(() => lambMoments({ ...state, grad, m: state.v })).toThrow('m and v that overlap');
    expect(() => lambMoments({ ...state, grad, p: Tensor.empty([2], { dtype: 'bf16' }) })).toThrow(
      'f32 for p, got bf16',
    );
    expect(() => lambStep({ ...state, step: 0, lr: 1 })).toThrow('lamb_step: expected a whole step >= 1, got 0');
    expect(() => lambStep({ ...state, step: 1, lr: 1, minCoefficient: 2, maxCoefficient: 1 })).toThrow('got 2 and 1');
    expect(() => lambStep({ ...state, step: 1, lr: 1, copy: state.p })).toThrow('copy and p that overlap');
  });
});
