/** Packed weights: laid out once, when a model is loaded, for products with one row or with thousands; and those products. */
import { type Device, type DeviceName, device as deviceOf } from '../device';
import { DsError } from '../errors';
import { native } from '../loader';
import { keep } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape } from './check';
import { fill } from './elementwise';

/** In the order of csrc/kernels/gemm/packed_weight.h; bytes of 16 rows and 32 columns. */
const formats = { f32: 2048, bf16: 1024, f16: 1024, q8: 544, q4: 288 } as const;
const activations = ['none', 'gelu', 'gelu_exact', 'relu', 'silu'] as const;
const norms = ['none', 'layer', 'rms'] as const;

/** Bits a weight: f32 32, bf16 and f16 16, q8 8.5, q4 4.5 (a block of 32 columns shares a scale of 16 bits). */
export type PackedFormat = keyof typeof formats;

export interface PackedWeightOptions {
  format: PackedFormat;
  /** N: of the product's columns, or twice as many where `gated` */
  rows: number;
  /** K: of x */
  columns: number;
  /** The first half of the rows are gates, the other half the values that `act(gate)` multiplies. Default false. */
  gated?: boolean;
  /** Default cpu. */
  device?: DeviceName | Device;
}

/** What happens to each row of x first, in the same pass. */
export interface RowNorm {
  kind: 'layer' | 'rms';
  /** [K] f32 */
  weight: Tensor;
  /** [K] f32, of a layer norm */
  bias?: Tensor;
  eps: number;
}

export interface PackedLinearOptions {
  /** [N] f32, in the order of the weight's rows */
  bias?: Tensor;
  /** `gelu` is the tanh form, `gelu_exact` the one by erf. Default none. */
  activation?: Exclude<(typeof activations)[number], 'none'>;
  /** Shape and dtype of the result: added last. May be `into`. */
  residual?: Tensor;
  norm?: RowNorm;
  /** Where the result goes, dtype of x or f32; default a new tensor of x's dtype. */
  into?: Tensor;
}

/** A weight [N, K] in the layout that `packedLinear` reads. Owns its memory; no `scope` drops it. */
export class PackedWeight implements Disposable {
  readonly format: PackedFormat;
  readonly rows: number;
  readonly columns: number;
  readonly gated: boolean;
  /** u8 [groups, bytes of a group]; the layout is the same on every device, so a copy of the bytes is a copy of the weight. */
  readonly bytes: Tensor;

  private constructor({ format, rows, columns, gated = false, device }: PackedWeightOptions) {
    this.format = format;
    this.rows = rows;
    this.columns = columns;
    this.gated = gated;
    const shape = [Math.ceil(rows / 16), Math.ceil(columns / 32) * formats[format]];
    this.bytes = keep(Tensor.empty(shape, { dtype: 'u8', device: deviceOf(device ?? 'cpu') }));
  }

  /** Makes a weight of zeros. @throws SHAPE, UNSUPPORTED, OOM */
  static empty(options: PackedWeightOptions): PackedWeight {
    const { format, rows, columns, gated = false } = options;
    if (!Object.hasOwn(formats, format))
      throw new DsError({
        code: 'UNSUPPORTED',
        op: 'pack_weight',
        expected: `${Object.keys(formats).join(', ')} for format`,
        actual: String(format),
      });
    const whole = Number.isInteger(rows) && rows >= 0 && Number.isInteger(columns) && columns >= 1;
    if (!whole || (gated && rows % 2 !== 0))
      throw new DsError({
        code: 'SHAPE',
        op: 'pack_weight',
        expected: gated ? 'an even number of rows, and one column or more' : 'whole rows >= 0 and columns >= 1',
        actual: `[${rows}, ${columns}]`,
        hint: gated ? 'a gated weight holds as many gates as values' : undefined,
      });
    const weight = new PackedWeight(options);
    fill(weight.bytes, 0);
    return weight;
  }

  /**
   * Packs rows `firstRow`, `firstRow + 1`, … from `source [n, columns]`, rounded to the format; the others stay.
   *
   * @param source f32, bf16 or f16, on the weight's device
   * @throws SHAPE, DTYPE, DEVICE
   */
  write(source: Tensor, firstRow = 0): void {
    expectFloat('pack_weight', 'source', source);
    expectShape('pack_weight', 'source', source, [null, this.columns], 'a row holds one number for each column');
    expectDevice('pack_weight', this.bytes, source);
    if (!Number.isInteger(firstRow) || firstRow < 0 || firstRow + source.dim(0) > this.rows)
      throw new DsError({
        code: 'SHAPE',
        op: 'pack_weight',
        expected: `rows from 0 to ${this.rows}`,
        actual: `${source.dim(0)} rows from ${firstRow}`,
      });
    native.pack_weight(this.bytes.device.stream.id, ...fields(this), source.id, firstRow);
  }

  [Symbol.dispose](): void {
    this.bytes.dispose();
  }
}

function fields({ bytes, format, rows, columns, gated }: PackedWeight): [number, number, number, number, boolean] {
  return [bytes.id, Object.keys(formats).indexOf(format), rows, columns, gated];
}

function expectInputs(op: string, x: Tensor, weight: PackedWeight, norm: RowNorm | undefined): void {
  expectFloat(op, 'x', x);
  expectShape(op, 'x', x, ['...', weight.columns], "the last dim of x is the weight's columns");
  expectDevice(op, x, weight.bytes, norm?.weight, norm?.bias);
  if (!norm) return;
  const wide = x.dtype === 'f64' ? (['f32', 'f64'] as const) : (['f32'] as const);
  if (norm.kind === 'rms' && norm.bias)
    throw new DsError({ code: 'CONFIG', op, expected: 'an RMS norm without bias', actual: 'one with a bias' });
  for (const [name, row] of [['norm.weight', norm.weight] as const, ['norm.bias', norm.bias] as const]) {
    if (!row) continue;
    expectShape(op, name, row, [weight.columns]);
    expectDType(op, name, row, wide);
  }
}

function normFields(norm: RowNorm | undefined): [number, number, number, number] {
  return [norms.indexOf(norm?.kind ?? 'none'), norm?.weight.id ?? 0, norm?.bias?.id ?? 0, norm?.eps ?? 0];
}

/**
 * Multiplies `x [..., K]`, or its norm, by a packed weight [N, K] transposed; adds the bias, applies the activation, multiplies
 * gates with their values, adds the residual.
 *
 * On the CPU a row of the result has the same bits in any batch. With a q8 or q4 weight the (normalised) row is rounded to 8 bits
 * in blocks of 32: the error is at most the sum over blocks of max|n| / 254 * sum |w|.
 *
 * @returns [..., N], or [..., N / 2] of a gated weight; dtype of `into`, else of x
 * @throws SHAPE, DTYPE, DEVICE, CONFIG
 */
export function packedLinear(x: Tensor, weight: PackedWeight, options: PackedLinearOptions = {}): Tensor {
  const op = 'packed_linear';
  const { bias, activation = 'none', residual, norm, into } = options;
  expectInputs(op, x, weight, norm);
  const shape = [...x.shape.slice(0, -1), weight.gated ? weight.rows / 2 : weight.rows];
  if (into) {
    expectShape(op, 'into', into, shape);
    expectDType(op, 'into', into, [x.dtype, 'f32']);
  }
  const dtype = into?.dtype ?? x.dtype;
  if (bias) {
    expectShape(op, 'bias', bias, [weight.rows]);
    expectDType(op, 'bias', bias, x.dtype === 'f64' ? ['f32', 'f64'] : ['f32']);
  }
  if (residual) {
    expectShape(op, 'residual', residual, shape);
    expectDType(op, 'residual', residual, [dtype]);
  }
  expectDevice(op, x, bias, residual, into);
  const y = into ?? Tensor.empty(shape, { dtype, device: x.device });
  // biome-ignore format: the order of the contract
  native.packed_linear(x.device.stream.id, y.id, x.id, ...fields(weight), bias?.id ?? 0, residual?.id ?? 0, ...normFields(norm), activations.indexOf(activation));
  return y;
}

/**
 * Gives for each row of `x [..., K]` the row of `weight` whose product is the largest, without writing the products: what
 * `argmax(packedLinear(x, weight))` gives. The first one of equals; a NaN counts as the largest.
 *
 * @returns [...] i32
 * @throws SHAPE, DTYPE, DEVICE, CONFIG
 */
export function packedArgmax(x: Tensor, weight: PackedWeight, options: { norm?: RowNorm } = {}): Tensor {
  expectInputs('packed_argmax', x, weight, options.norm);
  expectPlain('packed_argmax', weight);
  if (weight.rows === 0)
    throw new DsError({
      code: 'SHAPE',
      op: 'packed_argmax',
      expected: 'a weight of one row or more',
      actual: '0 rows',
    });
  const out = Tensor.empty(x.shape.slice(0, -1), { dtype: 'i32', device: x.device });
  native.packed_argmax(x.device.stream.id, out.id, x.id, ...fields(weight), ...normFields(options.norm));
  return out;
}

/**
 * Looks up rows of a packed weight: the embedding of a model whose head is tied to it.
 *
 * @param ids any shape, i32
 * @returns [...ids.shape, K] f32: the numbers that products use, exactly
 * @throws SHAPE, DTYPE, DEVICE; an id outside [0, N) fails the stream (seen at its next join), naming id and position
 */
export function packedRows(weight: PackedWeight, ids: Tensor): Tensor {
  expectDType('packed_rows', 'ids', ids, ['i32'], 'make ids with { dtype: "i32" }');
  expectDevice('packed_rows', ids, weight.bytes);
  expectPlain('packed_rows', weight);
  const y = Tensor.empty([...ids.shape, weight.columns], { device: ids.device });
  native.packed_rows(ids.device.stream.id, y.id, ids.id, ...fields(weight));
  return y;
}

function expectPlain(op: string, weight: PackedWeight): void {
  if (!weight.gated) return;
  throw new DsError({ code: 'UNSUPPORTED', op, expected: 'a weight that is not gated', actual: 'a gated one' });
}
