import { Random } from '../../csrc/kernels/common/cases';
import { Tensor } from '../tensor/tensor';
import { argmax, nonfiniteIndex, squareSum, sum } from './reduce';

describe('sum and squareSum', () => {
  it('keeps what f32 would lose', async () => {
    const n = 100_000;
    const values = new Float32Array(n).fill(1);
    values[0] = 2 ** 24;
    expect(await sum(Tensor.from(values, [n])).item()).toBe(2 ** 24 + n - 1);
    expect(await squareSum(Tensor.from(values, [n])).item()).toBe(2 ** 48 + n - 1);
  });

  it('squares the largest and the smallest floats without overflow or loss', async () => {
    const max = 3.4028234663852886e38;
    expect(await squareSum(Tensor.from([max, max], [2])).item()).toBe(2 * max * max);
    expect(await squareSum(Tensor.from([2 ** -149], [1])).item()).toBe(2 ** -298);
  });

  it('shows an infinity or a NaN anywhere', async () => {
    for (const at of [0, 4095, 4096, 20000])
      for (const bad of [Number.NaN, Infinity]) {
        const values = new Float32Array(20001).fill(1);
        values[at] = bad;
        expect(await squareSum(Tensor.from(values, [20001])).item()).toBe(bad);
        expect(await sum(Tensor.from(values, [20001], { dtype: 'bf16' })).item()).toBe(bad);
      }
  });

  it('adds up over tensors when it accumulates, and starts anew otherwise', async () => {
    const into = Tensor.from([1000], [1], { dtype: 'f64' });
    squareSum(Tensor.from([1, 2], [2]), into);
    squareSum(Tensor.from([3], [1], { dtype: 'bf16' }), into, true);
    sum(Tensor.empty([0]), into, true);
    expect(await into.item()).toBe(14);
    expect(await sum(Tensor.empty([0]), into).item()).toBe(0);
  });

  it('refuses to keep a long sum in f32', () => {
    expect(() => squareSum(Tensor.empty([3]), Tensor.empty([1]))).toThrow('square_sum: expected f64 for into, got f32');
    expect(() => sum(Tensor.empty([3]), Tensor.empty([2], { dtype: 'f64' }))).toThrow('expected [1] for into, got [2]');
    expect(() => sum(Tensor.empty([3], { dtype: 'i32' }))).toThrow('for x, got i32');
  });
});

describe('nonfiniteIndex', () => {
  it('finds the first of several, at any place, and none in the largest finite number', async () => {
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      for (const at of [0, 15, 16, 32768, 65535, 70000]) {
        const values = new Float32Array(70001).fill(6e4);
        values.fill(Number.NaN, Math.min(at + 100, 70000));
        values[at] = -Infinity;
        expect(await nonfiniteIndex(Tensor.from(values, [70001], { dtype })).item()).toBe(at);
      }
    }
    expect(await nonfiniteIndex(Tensor.from([3.4028234663852886e38, -0], [2])).item()).toBe(-1);
  });
});

describe('argmax', () => {
  it('takes the first of equals, in any lane', async () => {
    const V = 300;
    const random = new Random(4);
    for (let round = 0; round < 50; round++) {
      const row = Float64Array.from({ length: V }, () => random.integer(4));
      const first = row.indexOf(Math.max(...row));
      expect(await argmax(Tensor.from(row, [V])).item()).toBe(first);
      expect(await argmax(Tensor.from(row, [V], { device: 'ref' })).item()).toBe(first);
    }
  });

  it('takes the first NaN before any number, and 0 in a row of -inf', async () => {
    for (const name of ['cpu', 'ref'] as const) {
      const V = 100;
      const rows = [0, 1, 2, 3].map(() => new Float64Array(V).fill(-Infinity));
      rows[0]![70] = Number.NaN;
      rows[0]![55] = Number.NaN;
      rows[0]![20] = Infinity;
      rows[1]![99] = Number.NaN;
      rows[3]![99] = -1e30;
      const x = Tensor.from(
        rows.flatMap((row) => [...row]),
        [2, 2, V],
        { device: name },
      );
      const index = argmax(x);
      expect(index.shape).toEqual([2, 2]);
      expect([...(await index.read<'i32'>())]).toEqual([55, 99, 0, 99]);
    }
  });
});
