/**
 * Element types of the safetensors format, under the lower-case names that the rest of the project uses.
 * The file's names are the same in upper case (`bf16` is `BF16` in a header).
 */

/**
 * Bits per element, in the order in which the reference writer lays out a file: it puts the types that come last here
 * first. That order is part of being byte-compatible with it.
 */
const BITS = {
  bool: 8,
  f4: 4,
  f6_e2m3: 6,
  f6_e3m2: 6,
  u8: 8,
  i8: 8,
  f8_e5m2: 8,
  f8_e4m3: 8,
  f8_e8m0: 8,
  f8_e4m3fnuz: 8,
  f8_e5m2fnuz: 8,
  i16: 16,
  u16: 16,
  f16: 16,
  bf16: 16,
  i32: 32,
  u32: 32,
  f32: 32,
  c64: 64,
  f64: 64,
  i64: 64,
  u64: 64,
} as const;

/** Element type of a tensor in a file. */
export type FileDtype = keyof typeof BITS;

/** All element types, in the order of the format's definition. */
export const FILE_DTYPES = Object.freeze(Object.keys(BITS) as FileDtype[]);

const RANK = new Map<FileDtype, number>(FILE_DTYPES.map((dtype, index) => [dtype, index]));
const BY_FILE_NAME = new Map<string, FileDtype>(FILE_DTYPES.map((dtype) => [dtype.toUpperCase(), dtype]));

/** Returns the bits one element takes (4 and 6 for packed types). */
export const bitsOf = (dtype: FileDtype): number => BITS[dtype];

/** Returns the type of a header's name such as `BF16`, or undefined if the format has none of that name. */
export const dtypeFromFileName = (name: string): FileDtype | undefined => BY_FILE_NAME.get(name);

/** Returns the name a header uses for the type: `bf16` gives `BF16`. */
export const fileNameOfDtype = (dtype: FileDtype): string => dtype.toUpperCase();

/** Orders types as the reference writer lays them out: negative when `a` comes first in a file. */
export const compareDtypes = (a: FileDtype, b: FileDtype): number => (RANK.get(b) ?? 0) - (RANK.get(a) ?? 0);

/** Says whether the string names a type (`f32`, not `F32`). */
export const isFileDtype = (name: string): name is FileDtype => Object.hasOwn(BITS, name);

/**
 * Counts the elements of a shape, or returns undefined where the product leaves the exact integers.
 * The empty shape is a scalar: one element.
 */
export function elementCountOf(shape: readonly number[]): number | undefined {
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) return undefined;
    count *= size;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}

/** Counts the bytes of `elements` packed back to back, or returns undefined if they do not fill whole bytes. */
export function byteLengthOf(dtype: FileDtype, elements: number): number | undefined {
  const bits = elements * BITS[dtype];
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : undefined;
}
