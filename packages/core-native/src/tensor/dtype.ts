/** Element types, and what they are in JavaScript. */

export type DType = 'f32' | 'bf16' | 'f16' | 'i32' | 'u8' | 'f64';

/** The values cross the native boundary: keep in step with csrc/runtime/dtype.h. */
export const dtypeCode: Record<DType, number> = { f32: 0, bf16: 1, f16: 2, i32: 3, u8: 4, f64: 5 };

export const dtypeBytes: Record<DType, number> = { f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1, f64: 8 };

/** What `Tensor.read` gives: 16-bit floats come as their bits. */
export interface ArrayOf {
  f32: Float32Array;
  bf16: Uint16Array;
  f16: Uint16Array;
  i32: Int32Array;
  u8: Uint8Array;
  f64: Float64Array;
}

export type TypedArray = ArrayOf[DType];

const constructors = {
  f32: Float32Array,
  bf16: Uint16Array,
  f16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
  f64: Float64Array,
};

/** Lays a typed array of `dtype` over bytes, without a copy. */
export function typedArray<D extends DType>(dtype: D, buffer: ArrayBuffer): ArrayOf[D] {
  return new constructors[dtype](buffer) as ArrayOf[D];
}

const word = new DataView(new ArrayBuffer(8));

function bf16FromNumber(x: number): number {
  word.setFloat32(0, x);
  const bits = word.getUint32(0);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

function bf16ToNumber(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}

function f16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}

function f16FromNumber(value: number): number {
  const x = Math.fround(value);
  if (Number.isNaN(x)) return 0x7e00;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(x);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude * 2 ** 24);
  const exponent = Math.floor(Math.log2(magnitude));
  const scale = magnitude < 2 ** exponent ? exponent - 1 : exponent;
  return sign | (((scale + 15) << 10) + roundHalfEven((magnitude / 2 ** scale - 1) * 1024));
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
}

/** Rounds numbers to `dtype` (to nearest, ties to even) and packs them. */
export function packNumbers(dtype: DType, values: ArrayLike<number>): TypedArray {
  const packed = new constructors[dtype](values.length);
  const convert = dtype === 'bf16' ? bf16FromNumber : dtype === 'f16' ? f16FromNumber : (x: number) => x;
  for (let i = 0; i < values.length; i++) packed[i] = convert(values[i]!);
  return packed;
}

/** Widens packed values of `dtype` to f64 (exact). */
export function unpackNumbers(dtype: DType, packed: TypedArray): Float64Array {
  const numbers = new Float64Array(packed);
  if (dtype !== 'bf16' && dtype !== 'f16') return numbers;
  const convert = dtype === 'bf16' ? bf16ToNumber : f16ToNumber;
  for (let i = 0; i < numbers.length; i++) numbers[i] = convert(numbers[i]!);
  return numbers;
}
