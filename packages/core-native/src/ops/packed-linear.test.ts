import { Random } from '../../csrc/kernels/common/cases';
import { cudaDevices, type DeviceName } from '../device';
import { DsError } from '../errors';
import { setThreads, threads } from '../index';
import { native } from '../loader';
import { liveTensors, Tensor } from '../tensor/tensor';
import { type PackedFormat, PackedWeight, packedArgmax, packedLinear, packedRows } from './packed-linear';
import { argmax } from './reduce';

const formats: PackedFormat[] = ['f32', 'bf16', 'f16', 'q8', 'q4'];
const devices: DeviceName[] = ['cpu', 'ref', ...(cudaDevices().devices.length > 0 ? (['cuda:0'] as const) : [])];

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

function pack(
  format: PackedFormat,
  values: ArrayLike<number>,
  shape: [number, number],
  device: DeviceName = 'cpu',
  gated = false,
) {
  const weight = PackedWeight.empty({ format, rows: shape[0], columns: shape[1], gated, device });
  using source = Tensor.from(values, shape, { device });
  weight.write(source);
  return weight;
}

async function refusal(fn: () => unknown): Promise<DsError> {
  try {
    await fn();
  } catch (error) {
    if (DsError.is(error)) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('a packed weight', () => {
  it.each(formats)('has the same bytes on every device, whole or in pieces: %s', async (format) => {
    const [N, K] = [37, 71];
    const values = normals(N * K, 1);
    // Ties of magnitude, a block of zeros, one whose scale is subnormal in f16, and one whose scale is 0 there.
    values.set([2, -2, 2], 0);
    values.fill(0, 3 * K, 3 * K + 32);
    for (let k = 0; k < 32; k++) values[5 * K + k]! *= 1e-5;
    for (let k = 0; k < 32; k++) values[6 * K + k]! *= 1e-9;
    for (const gated of [false, true]) {
      const rows = gated ? N - 1 : N;
      using whole = pack(format, values.subarray(0, rows * K), [rows, K], 'cpu', gated);
      const bytes = await whole.bytes.read();
      expect(bytes.some((byte) => byte !== 0)).toBe(true);
      for (const device of devices) {
        using pieces = PackedWeight.empty({ format, rows, columns: K, gated, device });
        for (const [first, n] of [
          [20, rows - 20],
          [0, 3],
          [3, 17],
        ] as const) {
          using part = Tensor.from(values.subarray(first * K, (first + n) * K), [n, K], { device });
          pieces.write(part, first);
        }
        expect(await pieces.bytes.read()).toEqual(bytes);
      }
    }
  });

  it('rounds by half a scale at most, and q4 hits the number of largest magnitude', async () => {
    const [N, K] = [16, 64];
    const values = normals(N * K, 2);
    using ids = Tensor.from([...Array(N).keys()], [N], { dtype: 'i32' });
    for (const [format, steps, most] of [
      ['q8', 127, 0.5],
      ['q4', 8, 1],
    ] as const) {
      using weight = pack(format, values, [N, K]);
      using rows = packedRows(weight, ids);
      const numbers = await rows.numbers();
      for (let block = 0; block < (N * K) / 32; block++) {
        const at = (i: number) => values[block * 32 + i]!;
        let largest = 0;
        for (let i = 1; i < 32; i++) if (Math.abs(at(i)) > Math.abs(at(largest))) largest = i;
        const scale = Math.abs(at(largest)) / steps;
        for (let i = 0; i < 32; i++) {
          // What is near the other end of q4's range has one step more to go.
          const far = at(i) * at(largest) < 0 && Math.abs(at(i)) > 7.5 * scale;
          expect(Math.abs(numbers[block * 32 + i]! - at(i))).toBeLessThanOrEqual(
            (far ? most : 0.5) * scale * 1.002 + 1e-9,
          );
        }
        // Its own error is that of the scale, which has 11 bits.
        expect(Math.abs(numbers[block * 32 + largest]! / at(largest) - 1)).toBeLessThan(2 ** -11 * 1.01);
      }
    }
  });

  it('owns its memory: no scope drops it, dispose gives it back', () => {
    const before = liveTensors();
    const weight = pack('q4', normals(64, 3), [2, 32]);
    expect(liveTensors()).toBe(before + 1);
    weight[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });

  it('looks up rows, and names an id outside it', async () => {
    for (const device of devices) {
      using weight = pack('bf16', [1, 2, 3, 4, 5, 6], [3, 2], device);
      using ids = Tensor.from([2, 0, 2], [3, 1], { dtype: 'i32', device });
      using rows = packedRows(weight, ids);
      expect(rows.shape).toEqual([3, 1, 2]);
      expect([...(await rows.numbers())]).toEqual([5, 6, 1, 2, 5, 6]);
      using bad = Tensor.from([1, 3], [2], { dtype: 'i32', device });
      const error = await refusal(async () => {
        using none = packedRows(weight, bad);
        await none.read();
      });
      expect(error.actual).toBe('3 at position 1');
    }
  });
});

describe('packedLinear', () => {
  const allThreads = threads();
  const { isa: best, supported } = native.cpu();
  afterEach(() => {
    setThreads(allThreads);
    native.set_isa(best);
  });

  it.each(formats.flatMap((format) => supported.map((isa) => [format, isa] as const)))(
    'gives a row the same bits in any batch and with any number of threads: %s, %s',
    async (format, isa) => {
      native.set_isa(isa);
      const [most, K, N] = [520, 1100, 52];
      const values = normals(most * K, 4);
      using weight = pack(format, normals(N * K, 5), [N, K]);
      using normWeight = Tensor.from(normals(K, 6), [K]);
      using normBias = Tensor.from(normals(K, 7), [K]);
      const norm = { kind: 'layer', weight: normWeight, bias: normBias, eps: 1e-5 } as const;
      const rowsOf = async (first: number, R: number) => {
        using x = Tensor.from(values.subarray(first * K, (first + R) * K), [R, K]);
        using y = packedLinear(x, weight, { norm, activation: 'silu' });
        using winners = packedArgmax(x, weight, { norm });
        return { y: await y.read<'f32'>(), winners: await winners.read<'i32'>() };
      };
      setThreads(1);
      const all = await rowsOf(0, most);
      for (const count of [1, 2]) {
        setThreads(count);
        for (const [first, R] of [
          [0, 1],
          [519, 1],
          [255, 2],
          [3, 5],
          [200, 16],
          [90, 17],
          [11, 71],
          [0, 520],
        ] as const) {
          const { y, winners } = await rowsOf(first, R);
          expect(
            Buffer.compare(Buffer.from(y.buffer), Buffer.from(all.y.slice(first * N, (first + R) * N).buffer)),
          ).toBe(0);
          expect(winners).toEqual(all.winners.slice(first, first + R));
        }
      }
    },
  );

  it('rounds x to 8 bits within the bound that the contract gives', async () => {
    const [R, K, N] = [3, 100, 40];
    const values = normals(R * K, 8);
    for (const format of ['q8', 'q4'] as const) {
      using wide = pack(format, normals(N * K, 9), [N, K], 'ref');
      using ids = Tensor.from([...Array(N).keys()], [N], { dtype: 'i32', device: 'ref' });
      using rows = packedRows(wide, ids);
      const numbers = await rows.numbers();
      using wideX = Tensor.from(Float32Array.from(values), [R, K], { dtype: 'f64', device: 'ref' });
      using exact = packedLinear(wideX, wide);
      const expected = await exact.numbers();
      for (const device of devices) {
        using weight = pack(format, normals(N * K, 9), [N, K], device);
        using x = Tensor.from(values, [R, K], { device });
        using y = packedLinear(x, weight);
        const found = await y.numbers();
        let rounded = 0;
        for (let r = 0; r < R; r++)
          for (let n = 0; n < N; n++) {
            let bound = 1e-5;
            for (let b = 0; b < K; b += 32) {
              const block = Array.from({ length: Math.min(32, K - b) }, (_, i) => b + i);
              const largest = Math.max(...block.map((k) => Math.abs(values[r * K + k]!)));
              for (const k of block) bound += (largest / 254) * Math.abs(numbers[n * K + k]!);
            }
            const error = Math.abs(found[r * N + n]! - expected[r * N + n]!);
            expect(error).toBeLessThanOrEqual(bound);
            rounded += error;
          }
        expect(rounded).toBeGreaterThan(0);
      }
    }
  });

  it('keeps NaN and infinities in their row, and blocks of tiny numbers finite', async () => {
    const [K, N] = [64, 20];
    for (const device of devices)
      for (const format of formats) {
        using weight = pack(format, normals(N * K, 10), [N, K], device);
        const values = normals(4 * K, 11);
        values[K + 3] = Number.NaN;
        values[2 * K + 40] = Number.POSITIVE_INFINITY;
        for (let k = 0; k < 32; k++) values[3 * K + k]! *= 1e-42;
        using x = Tensor.from(values, [4, K], { device });
        using y = packedLinear(x, weight);
        const numbers = await y.numbers();
        for (let n = 0; n < N; n++) {
          expect(Number.isFinite(numbers[n]!)).toBe(true);
          expect(numbers[N + n]).toBeNaN();
          expect(Number.isFinite(numbers[2 * N + n]!)).toBe(false);
          expect(Number.isFinite(numbers[3 * N + n]!)).toBe(true);
        }
      }
  });

  it('adds a residual in place, and writes f32 from 16-bit rows', async () => {
    for (const device of devices) {
      using weight = pack('f32', [1, 2, 3, 4], [2, 2], device);
      using x = Tensor.from([1, 1.0078125], [1, 2], { dtype: 'bf16', device });
      using y = Tensor.from([10, 20], [1, 2], { device });
      expect(packedLinear(x, weight, { residual: y, into: y })).toBe(y);
      expect([...(await y.numbers())]).toEqual([13.015625, 27.03125]);
    }
  });

  it('refuses what does not fit, and says what would', async () => {
    using weight = pack('q8', normals(4 * 32, 12), [4, 32]);
    using gated = PackedWeight.empty({ format: 'q8', rows: 4, columns: 32, gated: true });
    using x = Tensor.from(normals(64, 13), [2, 32]);
    using narrow = Tensor.from(normals(62, 13), [2, 31]);
    using four = Tensor.from([1, 2, 3, 4], [4]);
    using row = Tensor.from(normals(32, 14), [32]);
    expect((await refusal(() => packedLinear(narrow, weight))).expected).toBe('[..., 32] for x');
    expect((await refusal(() => packedLinear(x, weight, { bias: row }))).expected).toBe('[4] for bias');
    expect((await refusal(() => packedLinear(x, weight, { residual: four }))).expected).toBe('[2, 4] for residual');
    expect((await refusal(() => packedLinear(x, gated, { residual: four }))).expected).toBe('[2, 2] for residual');
    expect((await refusal(() => packedArgmax(x, gated))).code).toBe('UNSUPPORTED');
    const norm = { kind: 'rms', weight: row, bias: row, eps: 0 } as const;
    expect((await refusal(() => packedLinear(x, weight, { norm }))).code).toBe('CONFIG');
    expect(
      (await refusal(() => packedLinear(x, weight, { norm: { kind: 'rms', weight: four, eps: 0 } }))).expected,
    ).toContain('[32]');
    expect((await refusal(() => weight.write(x, 3))).expected).toBe('rows from 0 to 4');
    expect((await refusal(() => PackedWeight.empty({ format: 'q8', rows: 3, columns: 1, gated: true }))).actual).toBe(
      '[3, 1]',
    );
    expect((await refusal(() => PackedWeight.empty({ format: 'q5' as 'q4', rows: 3, columns: 1 }))).code).toBe(
      'UNSUPPORTED',
    );
  });
});

describe('packedArgmax', () => {
  it.each(formats)(
    'gives what argmax gives of the product, the first of equals, NaN before all: %s',
    async (format) => {
      for (const device of devices) {
        // Rows 3, 20 and 40 are equal and the largest for x = 1; every weight is a power of two, so sums are exact.
        const [N, K] = [50, 32];
        const values = Float64Array.from({ length: N * K }, (_, i) =>
          [3, 20, 40].includes(Math.floor(i / K)) ? 8 : 4,
        );
        using weight = pack(format, values, [N, K], device);
        using x = Tensor.from(
          [...Array(K).fill(1), ...Array(K).fill(-1), Number.NaN, ...Array(K - 1).fill(1)],
          [3, K],
          { device },
        );
        using winners = packedArgmax(x, weight);
        using y = packedLinear(x, weight);
        using expected = argmax(y);
        expect([...(await winners.read())]).toEqual([3, 0, 0]);
        expect([...(await expected.read())]).toEqual([3, 0, 0]);
      }
    },
  );
});
