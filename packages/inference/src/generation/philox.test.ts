/** Random numbers by counter: the published answers, and numbers that are spread evenly. */
import { philox, uniform } from './philox';

describe('philox', () => {
  // Known answers of Random123 1.14 (Salmon et al. 2011), philox4x32-10.
  it.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('of %j is published', (counter, key, words) => {
    expect(philox(counter, key)).toEqual(words);
  });
});

describe('uniform numbers', () => {
  it('depend on seed and index, upper halves included, and lie in [0, 1)', () => {
    const seen = new Set<number>();
    for (const seed of [0, 1, 2 ** 32, 2 ** 53 - 1]) for (const i of [0, 1, 2 ** 32]) seen.add(uniform(seed, i));
    expect(seen.size).toBe(12);
    for (const u of seen) expect(u >= 0 && u < 1).toBe(true);
  });

  it('are spread evenly', () => {
    const n = 20_000;
    const counts = new Array<number>(20).fill(0);
    for (let i = 0; i < n; i++) counts[Math.floor(uniform(42, i) * 20)]!++;
    const chiSquare = counts.reduce((sum, count) => sum + (count - n / 20) ** 2 / (n / 20), 0);
    expect(chiSquare).toBeLessThan(36.2); // 19 degrees of freedom, p = 0.01
  });
});
