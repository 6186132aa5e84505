import { Random } from '../../csrc/kernels/common/cases';
import { cpuFeatures } from '../index';
import { native } from '../loader';
import type { DType } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { type AdamWStep, adamwStep } from './adamw';
import { cast } from './cast';
import { fill } from './elementwise';
import { fillNormal } from './fill-normal';

type State = Pick<AdamWStep, 'p' | 'm' | 'v'>;

function start(p: ArrayLike<number>, options: { dtype?: DType; device?: 'cpu' | 'ref' } = {}): State {
  const zeros = new Float64Array(p.length);
  const shape = [p.length];
  return {
    p: Tensor.from(p, shape, options),
    m: Tensor.from(zeros, shape, options),
    v: Tensor.from(zeros, shape, options),
  };
}

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

describe('adamwStep', () => {
  // Three steps with p = 1, gradient 0.1, lr 0.01, weight decay 0.1, in exact arithmetic.
  it.each([
    ['decoupled', 0.967032991997],
    ['l2', 0.970004912995],
  ] as const)('reaches the published value with %s decay', async (decay, expected) => {
    for (const [device, dtype, digits] of [
      ['ref', 'f64', 11],
      ['cpu', 'f32', 6],
    ] as const) {
      const state = start(new Float64Array(37).fill(1), { device, dtype });
      const grad = Tensor.from(new Float64Array(37).fill(0.1), [37], { device, dtype });
      for (let step = 1; step <= 3; step++) adamwStep({ ...state, grad, step, lr: 1e-2, weightDecay: 0.1, decay });
      for (const p of await state.p.numbers()) expect(p).toBeCloseTo(expected, digits);
    }
  });

  it('stays at the specification over 200 steps of noisy gradients', async () => {
    const n = 501;
    const [weights, cpu, ref] = [
      normals(n, 1),
      start(normals(n, 1)),
      start(normals(n, 1), { device: 'ref', dtype: 'f64' }),
    ];
    for (let step = 1; step <= 200; step++) {
      const g = normals(n, step + 10);
      const options = { step, lr: 3e-3, betas: [0.9, 0.95], weightDecay: 0.1, gradScale: 0.25 } as const;
      adamwStep({ ...cpu, ...options, grad: Tensor.from(g, [n]) });
      adamwStep({ ...ref, ...options, grad: Tensor.from(g.map(Math.fround), [n], { device: 'ref', dtype: 'f64' }) });
    }
    const [p, exact] = [await cpu.p.numbers(), await ref.p.numbers()];
    const farthest = (from: Float64Array): number => Math.max(...p.map((x, i) => Math.abs(x - from[i]!)));
    expect(farthest(exact)).toBeLessThan(1e-5);
    expect(farthest(weights)).toBeGreaterThan(0.1);
  });

  it.each(['f32', 'bf16', 'f16'] as const)(
    'gives the same bits on every instruction set and for any cut, with %s gradients',
    async (dtype) => {
      const n = 17001;
      const { isa: best, supported } = cpuFeatures();
      const grad = Tensor.from(
        normals(n, 3).map((g) => g * 10),
        [n],
        { dtype },
      );
      const run = async (cuts: number[], decay: 'decoupled' | 'l2'): Promise<Buffer> => {
        const state = start(normals(n, 2));
        const copy = Tensor.empty([n], { dtype: 'bf16' });
        for (let step = 1; step <= 3; step++) {
          let from = 0;
          for (const to of [...cuts, n]) {
            const part = (t: Tensor): Tensor => t.view([to - from], from);
            const parts = { p: part(state.p), m: part(state.m), v: part(state.v), grad: part(grad), copy: part(copy) };
            adamwStep({ ...parts, step, lr: 1e-2, weightDecay: 0.1, gradScale: 1 / 3, decay });
            from = to;
          }
        }
        const parts = await Promise.all([state.p, state.m, state.v, copy].map((t) => t.read()));
        return Buffer.concat(parts.map((part) => new Uint8Array(part.buffer)));
      };
      for (const decay of ['decoupled', 'l2'] as const) {
        const whole = await run([], decay);
        for (const isa of supported) {
          native.set_isa(isa);
          expect((await run([], decay)).equals(whole)).toBe(true);
          expect((await run([1, 14, 8000, 12393], decay)).equals(whole)).toBe(true);
        }
        native.set_isa(best);
      }
    },
  );

  it('writes the copy as the rounded weights, also over the gradient', async () => {
    const n = 1003;
    const state = start(normals(n, 4));
    const grad = Tensor.from(normals(n, 5), [n], { dtype: 'bf16' });
    adamwStep({ ...state, grad, copy: grad, step: 1, lr: 0.1 });
    expect(await grad.read()).toEqual(await cast(state.p, 'bf16').read());
    expect((await state.m.numbers()).every((m) => m !== 0)).toBe(true);
  });

  it('writes a long copy past the caches with the same bits, aligned or not', async () => {
    const n = 2 ** 20 + 37;
    const make = (seed: number): Tensor => {
      const t = Tensor.empty([n]);
      fillNormal(t, { std: 1, seed });
      return t;
    };
    const memory = Tensor.empty([n + 1], { dtype: 'bf16' });
    for (const decay of ['decoupled', 'l2'] as const)
      for (const offset of [0, 1]) {
        const [p, grad, copy] = [make(1), make(2), memory.view([n], offset)];
        const [m, v] = [fill(make(3), 0), fill(make(4), 0)];
        adamwStep({ p, m, v, grad, copy, step: 1, lr: 0.1, weightDecay: 0.1, decay });
        const [written, rounded] = [await copy.read(), await cast(p, 'bf16').read()];
        expect(Buffer.from(written.buffer).equals(Buffer.from(rounded.buffer))).toBe(true);
      }
  });

  it('takes bias correction 1 when told so', async () => {
    const state = start([1], { device: 'ref', dtype: 'f64' });
    const grad = Tensor.from([0.5], [1], { device: 'ref', dtype: 'f64' });
    adamwStep({ ...state, grad, step: 5, lr: 0.1, betas: [0.9, 0.99], eps: 0, biasCorrection: false });
    expect(await state.p.item()).toBeCloseTo(1 - (0.1 * 0.05) / 0.05, 12);
  });

  it('lets a gradient that is not finite show in all of its state and nowhere else', async () => {
    const state = start([1, 1, 1]);
    adamwStep({ ...state, grad: Tensor.from([1, Number.NaN, 1], [3]), step: 1, lr: 0.1 });
    for (const t of [state.p, state.m, state.v])
      expect([...(await t.numbers())].map(Number.isFinite)).toEqual([true, false, true]);
  });

  it('says what does not fit', () => {
    const state = start([1, 2]);
    const grad = Tensor.empty([2]);
    expect(() => adamwStep({ ...state, grad, step: 0, lr: 1 })).toThrow('adamw: expected a whole step >= 1, got 0');
    expect(() => adamwStep({ ...state, grad: Tensor.empty([3]), step: 1, lr: 1 })).toThrow('[2] for grad, got [3]');
    expect(() => adamwStep({ ...state, m: Tensor.empty([2], { dtype: 'bf16' }), grad, step: 1, lr: 1 })).toThrow(
      'f32 for m',
    );
    expect(() => adamwStep({ ...state, p: Tensor.empty([2], { dtype: 'bf16' }), grad, step: 1, lr: 1 })).toThrow(
      'adamw: expected f32 for p, got bf16. keep an f32 master',
    );
    expect(() => adamwStep({ ...state, m: state.p, grad, step: 1, lr: 1 })).toThrow(
      'got p and m that overlap. copy one of them first',
    );
  });
});
