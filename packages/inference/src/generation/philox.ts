/**
 * Random numbers by counter: the n-th number of a seed can be had without the ones before it.
 * Philox4x32-10, the generator that dropout and the first weights use too.
 * Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", sec. 3.3 (Philox).
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** Upper 32 bits of a product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carried = (middle % 0x10000) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carried / 0x10000)) >>> 0;
}

export type Words = readonly [number, number, number, number];

/** Gives the four 32-bit words of a counter under a key. Plain variables: it runs for every token that is drawn. */
export function philox(counter: Words, key: readonly [number, number]): Words {
  let c0 = counter[0];
  let c1 = counter[1];
  let c2 = counter[2];
  let c3 = counter[3];
  let k0 = key[0];
  let k1 = key[1];
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Gives number `index` of the stream that `seed` names, uniform in [0, 1), with 53 random bits. */
export function uniform(seed: number, index: number): number {
  const split = (x: number): [number, number] => [(x % 2 ** 32) >>> 0, Math.floor(x / 2 ** 32)];
  const [high, low] = philox([...split(index), 0, 0], split(seed));
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}
