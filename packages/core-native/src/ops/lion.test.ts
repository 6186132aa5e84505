import { Random } from '../../csrc/kernels/common/cases';
import { cpuFeatures } from '../index';
import { native } from '../loader';
import type { DType } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { cast } from './cast';
import { fill } from './elementwise';
import { fillNormal } from './fill-normal';
import { type LionStep, lionStep } from './lion';

type State = Pick<LionStep, 'p' | 'm'>;

function start(p: ArrayLike<number>, options: { dtype?: DType; device?: 'cpu' | 'ref' } = {}): State {
  return { p: Tensor.from(p, [p.length], options), m: Tensor.from(new Float64Array(p.length), [p.length], options) };
}

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

describe('lionStep', () => {
  it('equals the formula, written out in f64, over 5 steps', async () => {
    const n = 331;
    const [lr, weightDecay, gradScale] = [3e-3, 0.1, 0.5];
    const [beta1, beta2] = [0.95, 0.98];
    const weights = normals(n, 1).map(Math.fround);
    const moments = new Float64Array(n);
    const state = start(weights);
    for (let step = 1; step <= 5; step++) {
      const grad = normals(n, step + 10).map(Math.fround);
      lionStep({ ...state, grad: Tensor.from(grad, [n]), lr, weightDecay, gradScale, betas: [beta1, beta2] });
      grad.forEach((raw, i) => {
        const g = raw * gradScale;
        const c = beta1 * moments[i]! + (1 - beta1) * g;
        weights[i] = weights[i]! * (1 - lr * weightDecay) - lr * Math.sign(c);
        moments[i] = beta2 * moments[i]! + (1 - beta2) * g;
      });
    }
    const [p, m] = [await state.p.numbers(), await state.m.numbers()];
    for (let i = 0; i < n; i++) {
      expect(Math.abs(p[i]! - weights[i]!)).toBeLessThan(1e-6);
      expect(Math.abs(m[i]! - moments[i]!)).toBeLessThan(1e-6);
    }
  });

  it('does not move where the direction is exactly 0, of either sign', async () => {
    for (const device of ['cpu', 'ref'] as const) {
      const state = start([1, 2, 3, 4], { device });
      lionStep({ ...state, grad: Tensor.from([0, -0, 1e-30, -1e-30], [4], { device }), lr: 0.5 });
      expect([...(await state.p.numbers())]).toEqual([1, 2, 2.5, 4.5]);
    }
  });

  it.each(['f32', 'bf16', 'f16'] as const)(
    'gives the same bits on every instruction set and for any cut, with %s gradients',
    async (dtype) => {
      const n = 17001;
      const { isa: best, supported } = cpuFeatures();
      const grad = Tensor.from(normals(n, 3), [n], { dtype });
      const run = async (cuts: number[]): Promise<Buffer> => {
        const state = start(normals(n, 2));
        const copy = Tensor.empty([n], { dtype: 'bf16' });
        for (let step = 1; step <= 3; step++) {
          let from = 0;
          for (const to of [...cuts, n]) {
            const part = (t: Tensor): Tensor => t.view([to - from], from);
            const parts = { p: part(state.p), m: part(state.m), grad: part(grad), copy: part(copy) };
            lionStep({ ...parts, lr: 1e-2, weightDecay: 0.1, gradScale: 1 / 3 });
            from = to;
          }
        }
        const parts = await Promise.all([state.p, state.m, copy].map((t) => t.read()));
        return Buffer.concat(parts.map((part) => new Uint8Array(part.buffer)));
      };
      const whole = await run([]);
      for (const isa of supported) {
        native.set_isa(isa);
        expect((await run([])).equals(whole)).toBe(true);
        expect((await run([1, 14, 8000, 12393])).equals(whole)).toBe(true);
      }
      native.set_isa(best);
    },
  );

  it('writes the copy as the rounded weights: over the gradient, and past the caches, aligned or not', async () => {
    const state = start(normals(1003, 4));
    const grad = Tensor.from(normals(1003, 5), [1003], { dtype: 'bf16' });
    lionStep({ ...state, grad, copy: grad, lr: 0.1 });
    expect(await grad.read()).toEqual(await cast(state.p, 'bf16').read());
    const n = 2 ** 20 + 37;
    const memory = Tensor.empty([n + 1], { dtype: 'bf16' });
    for (const offset of [0, 1]) {
      const [p, m, g] = [1, 2, 3].map(() => Tensor.empty([n])) as [Tensor, Tensor, Tensor];
      fillNormal(p, { std: 1, seed: 1 });
      fillNormal(g, { std: 1, seed: 2 });
      fill(m, 0);
      const copy = memory.view([n], offset);
      lionStep({ p, m, grad: g, copy, lr: 0.1, weightDecay: 0.1 });
      const [written, rounded] = [await copy.read(), await cast(p, 'bf16').read()];
      expect(Buffer.from(written.buffer).equals(Buffer.from(rounded.buffer))).toBe(true);
    }
  });

  it('lets a NaN show in all of its state and nowhere else', async () => {
    const state = start([1, 1, 1]);
    lionStep({ ...state, grad: Tensor.from([1, Number.NaN, 1], [3]), lr: 0.1 });
    for (const t of [state.p, state.m])
      expect([...(await t.numbers())].map(Number.isFinite)).toEqual([true, false, true]);
  });

  it('says what does not fit', () => {
    const state = start([1, 2]);
    const grad = Tensor.empty([2]);
    expect(() => lionStep({ ...state, grad: Tensor.empty([3]), lr: 1 })).toThrow(
      'lion: expected [2] for grad, got [3]',
    );
    expect(() => lionStep({ ...state, m: Tensor.empty([2], { dtype: 'bf16' }), grad, lr: 1 })).toThrow('f32 for m');
    expect(() => lionStep({ ...state, p: Tensor.empty([2], { dtype: 'bf16' }), grad, lr: 1 })).toThrow(
      'lion: expected f32 for p, got bf16. keep an f32 master',
    );
    expect(() => lionStep({ ...state, m: state.p, grad, lr: 1 })).toThrow('got p and m that overlap');
  });
});
