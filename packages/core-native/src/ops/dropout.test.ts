import { Random } from '../../csrc/kernels/common/cases';
import { Tensor } from '../tensor/tensor';
import { dropout, dropoutCounters } from './dropout';

const ones = (n: number, device: 'cpu' | 'ref' = 'cpu'): Tensor =>
  Tensor.from(new Float32Array(n).fill(1), [n], { device });

/** Philox4x32-10 once more, in big integers. */
function philox(counter: bigint, key: bigint): number[] {
  const low = (x: bigint): bigint => x & 0xffffffffn;
  let [x0, x1, x2, x3] = [low(counter), low(counter >> 32n), 0n, 0n];
  let [k0, k1] = [low(key), low(key >> 32n)];
  for (let round = 0; round < 10; round++) {
    const [a, b] = [0xd2511f53n * x0, 0xcd9e8d57n * x2];
    [x0, x1, x2, x3] = [low(b >> 32n) ^ x1 ^ k0, low(b), low(a >> 32n) ^ x3 ^ k1, low(a)];
    [k0, k1] = [low(k0 + 0x9e3779b9n), low(k1 + 0xbb67ae85n)];
  }
  return [x0, x1, x2, x3].map(Number);
}

describe('dropout', () => {
  it('draws the published test vector of Philox4x32-10', async () => {
    // Random123's known answer for counter 0 and key 0. A word is kept by p = its upper 24 bits, dropped by one more.
    const words = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8];
    expect(philox(0n, 0n)).toEqual(words);
    for (const device of ['cpu', 'ref'] as const)
      for (const [i, word] of words.entries())
        for (const [step, kept] of [
          [0, true],
          [1, false],
        ] as const) {
          const y = await dropout(ones(4, device), {
            p: ((word >>> 8) + step) / 2 ** 24,
            seed: 0,
            offset: 0,
          }).numbers();
          expect(y[i]! > 0).toBe(kept);
        }
  });

  it('uses all 64 bits of seed and counter', async () => {
    const n = 103;
    const [seed, offset, p] = [2 ** 45 + 2 ** 33 + 5, 2 ** 32 - 9, 0.37];
    const y = await dropout(ones(n), { p, seed, offset }).numbers();
    for (let i = 0; i < n; i++) {
      const word = philox(BigInt(offset) + BigInt(Math.floor(i / 4)), BigInt(seed))[i % 4]!;
      expect(y[i]! > 0).toBe((word >>> 8) / 2 ** 24 >= p);
    }
  });

  it('drops the share p, and keeps the expected value', async () => {
    const n = 200_000;
    for (const p of [0.05, 0.5, 0.9]) {
      const y = await dropout(ones(n), { p, seed: 11, offset: 0 }).numbers();
      const kept = y.filter((x) => x !== 0);
      expect(new Set(kept)).toEqual(new Set([Math.fround(1 / (1 - p))]));
      // Five standard deviations of the binomial.
      expect(Math.abs(kept.length / n - (1 - p))).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / n));
    }
  });

  it('has one mask for every dtype and device, and for parts with their offsets', async () => {
    const n = 16404;
    const options = { p: 0.4, seed: 9, offset: 5 };
    const mask = (values: Float64Array): boolean[] => [...values].map((x) => x !== 0);
    const expected = mask(await dropout(ones(n), options).numbers());
    expect(mask(await dropout(ones(n, 'ref'), options).numbers())).toEqual(expected);
    for (const dtype of ['bf16', 'f16'] as const) {
      const x = Tensor.from(new Float32Array(n).fill(1), [n], { dtype });
      expect(mask(await dropout(x, options).numbers())).toEqual(expected);
    }
    const cut = 8000;
    const first = dropout(ones(cut), options);
    const second = dropout(ones(n - cut), { ...options, offset: options.offset + dropoutCounters(cut) });
    expect([...mask(await first.numbers()), ...mask(await second.numbers())]).toEqual(expected);
  });

  it('is a copy for p = 0, to the bit', async () => {
    const random = new Random(2);
    const x = Tensor.from(
      Float64Array.from({ length: 999 }, () => random.normal()),
      [999],
    );
    expect(await dropout(x, { p: 0, seed: 1, offset: 0 }).read()).toEqual(await x.read());
  });

  it('turns a dropped infinity or NaN into 0 plus the residual', async () => {
    for (const device of ['cpu', 'ref'] as const) {
      // Of the first four elements of seed 0, p = 0.5 drops the first alone (the test vector above).
      for (const bad of [Number.NaN, Infinity]) {
        const x = Tensor.from([bad, 1, 1, 1], [4], { device });
        const residual = Tensor.from([3, 0, 0, 0], [4], { device });
        expect([...(await dropout(x, { p: 0.5, seed: 0, offset: 0, residual }).numbers())]).toEqual([3, 2, 2, 2]);
      }
    }
  });

  it('may write over its input or over the residual', async () => {
    const options = { p: 0.3, seed: 1, offset: 0 };
    const make = (): Tensor =>
      Tensor.from(
        Float32Array.from({ length: 5000 }, (_, i) => i + 1),
        [5000],
      );
    const apart = await dropout(make(), { ...options, residual: make() }).read();
    const x = make();
    dropout(x, { ...options, residual: make(), into: x });
    const residual = make();
    dropout(make(), { ...options, residual, into: residual });
    expect(await x.read()).toEqual(apart);
    expect(await residual.read()).toEqual(apart);
  });

  it('refuses what is no probability and no whole number', () => {
    const x = ones(4);
    for (const p of [1, -0.1, Number.NaN])
      expect(() => dropout(x, { p, seed: 0, offset: 0 })).toThrow('dropout: expected 0 <= p < 1');
    expect(() => dropout(x, { p: 0.1, seed: 1.5, offset: 0 })).toThrow('for seed, got 1.5');
    expect(() => dropout(x, { p: 0.1, seed: 1, offset: -4 })).toThrow('for offset, got -4');
    expect(() => dropout(x, { p: 0.1, seed: 1, offset: 0, residual: ones(5) })).toThrow('[4] for residual, got [5]');
  });
});
