/** Damages bytes the way broken disks, cut downloads and attackers do. Seeded, so that a failure can be repeated. */

/** Uniform numbers in [0, 1) from a 32-bit seed. Source: mulberry32 (T. Ettinger, public domain). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const EXTREMES = [
  '0',
  '1',
  '-1',
  '255',
  '4294967296',
  '9007199254740993',
  '18446744073709551615',
  '1e308',
  '1.0',
  '01',
  'null',
];
const PIECES = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '\\',
  '\\u0000',
  '\\ud800',
  '\0',
  ' ',
  '../',
  '/',
  '"__proto__":1,',
  '\ufeff',
  'é',
  '\xff',
];

/** Returns a damaged copy: one to four changes of bytes, numbers, pieces of JSON or length. */
export function mutate(original: Uint8Array, random: () => number): Uint8Array {
  let bytes = Buffer.from(original);
  const below = (n: number): number => Math.floor(random() * n);
  const pick = (list: readonly string[]): string => list[below(list.length)]!;
  const splice = (at: number, remove: number, insert: Buffer): void => {
    bytes = Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(Math.min(at + remove, bytes.length))]);
  };
  for (let changes = 1 + below(4); changes > 0; changes--) {
    const at = below(Math.max(1, bytes.length));
    const kind = below(9);
    if (kind === 0 && bytes.length > 0) bytes[at]! ^= 1 << below(8);
    else if (kind === 1 && bytes.length > 0) bytes[at] = below(256);
    else if (kind === 2) splice(at, below(16), Buffer.alloc(0));
    else if (kind === 3) splice(at, 0, Buffer.from(pick(PIECES), 'latin1'));
    else if (kind === 4) splice(at, 0, Buffer.from(bytes.subarray(at, at + below(64))));
    else if (kind === 5) bytes = Buffer.from(bytes.subarray(0, at));
    else if (kind === 6) splice(bytes.length, 0, Buffer.alloc(below(16), below(2) * 0x20));
    else if (kind === 7) replaceNumber(below(1 << 16));
    else if (bytes.length >= 8)
      bytes.writeUInt32LE(below(2) === 0 ? 0xffffffff : below(2 ** 31), below(bytes.length - 7));
  }
  return bytes;

  /** Replaces one decimal number of the text by an extreme or by its neighbour. */
  function replaceNumber(nth: number): void {
    const numbers = [...bytes.toString('latin1').matchAll(/\d+/g)];
    const found = numbers[nth % Math.max(1, numbers.length)];
    if (!found) return;
    const neighbour = String(Number(found[0]) + (below(2) === 0 ? 1 : -1));
    splice(found.index, found[0].length, Buffer.from(below(2) === 0 ? neighbour : pick(EXTREMES)));
  }
}
