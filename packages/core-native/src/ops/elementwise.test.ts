import { Random } from '../../csrc/kernels/common/cases';
import { device } from '../device';
import { Tensor } from '../tensor/tensor';
import { cast, copy } from './cast';
import { add, fill, gelu, geluBackward, scale, scaleAdd } from './elementwise';

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

describe('scaleAdd', () => {
  it('gives the same bits in the place of either input', async () => {
    const n = 20001;
    const [a, b] = [normals(n, 1), normals(n, 2)];
    const make = (values: Float64Array): Tensor => Tensor.from(values, [n], { dtype: 'bf16' });
    const apart = await scaleAdd(0.3, make(a), -2, make(b)).read();
    const onA = make(a);
    scaleAdd(0.3, onA, -2, make(b), onA);
    const onB = make(b);
    scaleAdd(0.3, make(a), -2, onB, onB);
    expect(await onA.read()).toEqual(apart);
    expect(await onB.read()).toEqual(apart);
  });

  it('sums 100 bf16 micro-gradients into f32 with a relative L2 error below 1e-6', async () => {
    const n = 4099;
    const total = fill(Tensor.empty([n]), 0);
    const inBf16 = fill(Tensor.empty([n], { dtype: 'bf16' }), 0);
    const exact = new Float64Array(n);
    for (let micro = 0; micro < 100; micro++) {
      const gradient = Tensor.from(normals(n, micro + 1), [n], { dtype: 'bf16' });
      (await gradient.numbers()).forEach((g, i) => {
        exact[i]! += g;
      });
      add(total, gradient, total);
      add(inBf16, gradient, inBf16);
    }
    const error = (sum: Float64Array): number => Math.hypot(...sum.map((x, i) => x - exact[i]!)) / Math.hypot(...exact);
    expect(error(await total.numbers())).toBeLessThan(1e-6);
    expect(error(await inBf16.numbers())).toBeGreaterThan(1e-3);
  });

  it('says which argument does not fit', () => {
    const a = Tensor.empty([2, 3]);
    expect(() => add(a, Tensor.empty([3, 2]))).toThrow('scale_add: expected [2, 3] for b, got [3, 2]');
    expect(() => add(a, a, Tensor.empty([2, 3], { dtype: 'bf16' }))).toThrow(
      'scale_add: expected f32 for into, got bf16',
    );
    expect(() => add(a, Tensor.empty([2, 3], { device: 'ref' }))).toThrow('one on ref');
    expect(() => scale(Tensor.empty([2], { dtype: 'i32' }), 2)).toThrow(
      'scale: expected f32 or bf16 or f16 for x, got i32',
    );
    expect(() => scale(Tensor.empty([2], { dtype: 'f64' }), 2)).toThrow('got f64');
  });

  it('refuses an output that lies partly over an input', () => {
    const memory = Tensor.empty([10]);
    expect(() => add(memory.view([8], 0), memory.view([8], 2), memory.view([8], 1))).toThrow(
      'scale_add: expected views of the same memory or of none in common, got out and a that overlap',
    );
    expect(() => copy(memory.view([8], 0), memory.view([8], 2))).toThrow('got out and x that overlap');
    expect(() => copy(memory.view([5], 0), memory.view([5], 5))).not.toThrow();
  });
});

describe('copy and cast', () => {
  it('keeps NaN, the sign of zero and infinities, and rounds ties to even', async () => {
    const x = Tensor.from([Number.NaN, -0, Number.NEGATIVE_INFINITY, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1e6], [6]);
    expect([...(await cast(x, 'bf16').numbers())]).toEqual([Number.NaN, -0, -Infinity, 1, 1 + 2 ** -6, 999424]);
    expect([...(await cast(x, 'f16').numbers())].slice(0, 3)).toEqual([Number.NaN, -0, -Infinity]);
    expect((await cast(x, 'f16').numbers())[5]).toBe(Infinity);
  });

  it('widens f64 sums and integers without loss', async () => {
    const x = Tensor.from([2 ** 31 - 1, -7], [2], { dtype: 'i32' });
    expect([...(await cast(x, 'f64').numbers())]).toEqual([2 ** 31 - 1, -7]);
    const sums = Tensor.from([1 / 3, 1e300], [2], { dtype: 'f64' });
    expect([...(await cast(sums, 'f32').numbers())]).toEqual([Math.fround(1 / 3), Infinity]);
  });

  it('writes into a part of a larger tensor and nowhere else', async () => {
    const whole = fill(Tensor.empty([7], { dtype: 'bf16' }), 5);
    copy(Tensor.from([1, 2, 3], [3]), whole.view([3], 2));
    fill(whole.view([1], 6), -1);
    expect([...(await whole.numbers())]).toEqual([5, 5, 1, 2, 3, 5, -1]);
  });

  it('refuses to make integers of floats', () => {
    expect(() => cast(Tensor.empty([2]), 'i32')).toThrow('copy: expected f32, bf16, f16, f64 or f32 for into, got i32');
  });
});

describe('gelu', () => {
  it('is the identity far right, zero far left, and NaN for NaN', async () => {
    for (const device of ['cpu', 'ref'] as const) {
      const x = Tensor.from([1e30, -1e30, 20, -20, 0, Number.NaN], [6], { device });
      const one = fill(Tensor.empty([6], { device }), 1);
      expect((await gelu(x).numbers()).map((y) => y + 0)).toEqual(
        Float64Array.of(Math.fround(1e30), 0, 20, 0, 0, Number.NaN),
      );
      expect((await geluBackward(one, x).numbers()).map((y) => y + 0)).toEqual(
        Float64Array.of(1, 0, 1, 0, 0.5, Number.NaN),
      );
    }
  });

  it('keeps the relative precision of its left tail', async () => {
    // 1 + tanh(u) would cancel there: at -5 it is 2e-7, twice the spacing of floats near 1.
    const at = [-5, -4, -3];
    const [cpu, ref] = [Tensor.from(at, [3]), Tensor.from(at, [3], { dtype: 'f64', device: 'ref' })];
    const exact = await gelu(ref).numbers();
    (await gelu(cpu).numbers()).forEach((y, i) => {
      expect(Math.abs(y / exact[i]! - 1)).toBeLessThan(1e-5);
    });
  });

  it('gives an element the same bits wherever it stands', async () => {
    const x = Tensor.from(normals(40007, 3), [40007]);
    const dy = Tensor.from(normals(40007, 4), [40007]);
    const [whole, slope] = [await gelu(x).read<'f32'>(), await geluBackward(dy, x).read<'f32'>()];
    for (const [offset, n] of [
      [3, 40004],
      [16384, 5],
      [777, 1],
    ] as const) {
      expect(await gelu(x.view([n], offset)).read()).toEqual(whole.slice(offset, offset + n));
      const part = geluBackward(dy.view([n], offset), x.view([n], offset));
      expect(await part.read()).toEqual(slope.slice(offset, offset + n));
    }
  });

  it('may put the gradient in the place of dy', async () => {
    const [x, dy] = [Tensor.from(normals(1000, 5), [1000]), Tensor.from(normals(1000, 6), [1000])];
    const apart = await geluBackward(dy, x).read();
    geluBackward(dy, x, dy);
    expect(await dy.read()).toEqual(apart);
    await device('cpu').stream.join();
  });
});
