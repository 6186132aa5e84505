import { Random } from '../../csrc/kernels/common/cases';
import type { DType } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { fill } from './elementwise';
import { rmsNorm, rmsNormBackward } from './rms-norm';

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

describe('rmsNorm', () => {
  it('gives a row of known mean square, and zeros for zeros', async () => {
    for (const device of ['cpu', 'ref'] as const) {
      // Mean square 12.5; then all zeros, whose rstd is 1 / sqrt(eps).
      const x = Tensor.from([3, -4, 0, 0], [2, 2], { device });
      const { y, rstd } = rmsNorm(x, Tensor.from([1, 2], [2], { device }), { eps: 1e-12 });
      const [a, b, ...zeros] = await y.numbers();
      expect(a).toBeCloseTo(3 / Math.sqrt(12.5), 6);
      expect(b).toBeCloseTo(-8 / Math.sqrt(12.5), 6);
      expect(zeros).toEqual([0, 0]);
      expect((await rstd.numbers())[1]).toBeCloseTo(1e6, -1);
    }
  });

  it('gives a row the same bits whatever stands beside it', async () => {
    const [R, C] = [37, 1003];
    const x = Tensor.from(normals(R * C, 1), [R, C], { dtype: 'bf16' });
    const weight = Tensor.from(normals(C, 2), [C]);
    const whole = await rmsNorm(x, weight).y.read<'bf16'>();
    for (const r of [0, 17, 36])
      expect(await rmsNorm(x.view([1, C], r * C), weight).y.read()).toEqual(whole.slice(r * C, (r + 1) * C));
  });

  it.each(['f32', 'bf16', 'f16'] as const)('adds the gradient of the weight to what is there: %s', async (dtype) => {
    const [R, C] = [5, 67];
    const run = async (device: 'cpu' | 'ref', wide: DType) => {
      const s = Tensor.from(normals(R * C, 3), [R, C], { device });
      const dy = Tensor.from(normals(R * C, 4), [R, C], { device });
      const weight = Tensor.from(normals(C, 5), [C], { device });
      const dsum = Tensor.from(normals(R * C, 6), [R, C], { device });
      const { rstd } = rmsNorm(s, weight);
      const dweight = fill(Tensor.empty([C], { dtype: wide, device }), 64);
      const dx = rmsNormBackward(dy, { s, rstd, weight }, { dweight, accumulate: true }, { dsum });
      return { dweight: await dweight.numbers(), dx: await dx.numbers() };
    };
    const [cpu, ref] = [await run('cpu', dtype), await run('ref', 'f64')];
    // One rounding of a number near 64.
    const unit = { f32: 2 ** -17, bf16: 2 ** -1, f16: 2 ** -4 }[dtype];
    cpu.dweight.forEach((value, i) => {
      expect(Math.abs(value - ref.dweight[i]!)).toBeLessThan(unit);
    });
    expect(ref.dweight.some((value) => Math.abs(value - 64) > 1)).toBe(true);
    cpu.dx.forEach((value, i) => {
      expect(Math.abs(value - ref.dx[i]!)).toBeLessThan(1e-5);
    });
  });

  it('lets a number that is not finite show in its own row and nowhere else', async () => {
    const x = Tensor.from([1, 2, Number.NaN, 4, 5, 6], [3, 2]);
    const { y } = rmsNorm(x, Tensor.from([1, 1], [2]));
    expect([...(await y.numbers())].map(Number.isFinite)).toEqual([true, true, false, false, true, true]);
  });

  it('says which argument does not fit', () => {
    const x = Tensor.empty([2, 3]);
    const weight = Tensor.empty([3]);
    expect(() => rmsNorm(x, Tensor.empty([2]))).toThrow('rms_norm: expected [3] for weight, got [2]');
    expect(() => rmsNorm(x, Tensor.empty([3], { dtype: 'bf16' }))).toThrow('for weight, got bf16');
    expect(() => rmsNorm(x, weight, { residual: Tensor.empty([3, 2]) })).toThrow('[2, 3] for residual, got [3, 2]');
    expect(() => rmsNorm(Tensor.empty([2, 3], { dtype: 'i32' }), weight)).toThrow('for x, got i32');
    expect(() => rmsNorm(x, Tensor.empty([3], { device: 'ref' }))).toThrow('one on ref');
    const { rstd } = rmsNorm(x, weight);
    const backward = (dweight: Tensor, dy = x): Tensor =>
      rmsNormBackward(dy, { s: x, rstd, weight }, { dweight, accumulate: false });
    expect(() => backward(Tensor.empty([2]))).toThrow('rms_norm_backward: expected [3] for dweight, got [2]');
    expect(() => backward(Tensor.empty([3], { dtype: 'i32' }))).toThrow('for dweight, got i32');
    expect(() => backward(weight, Tensor.empty([3, 3]))).toThrow('[2, 3] for dy, got [3, 3]');
  });
});
