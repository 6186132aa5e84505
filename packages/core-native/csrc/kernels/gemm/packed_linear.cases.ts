import {
  type PackedFormat,
  type PackedLinearOptions,
  PackedWeight,
  packedArgmax,
  packedLinear,
  type RowNorm,
  type Tensor,
} from '@ds/core-native';
import type { Input, OpCase, OpCases, Parameters, Random, Tensors } from '../common/cases';

const formats: PackedFormat[] = ['f32', 'bf16', 'f16', 'q8', 'q4'];
const activations = ['none', 'gelu', 'gelu_exact', 'relu', 'silu'] as const;
const norms = ['none', 'layer', 'rms'] as const;

interface Extras {
  bias?: boolean;
  residual?: boolean;
  gated?: boolean;
  activation?: (typeof activations)[number];
  norm?: (typeof norms)[number];
  bench?: boolean;
  /** Normal numbers for x also where the weight is q8 or q4; then only the bound of their rounding is tested. */
  rounded?: boolean;
}

/** Numbers that rounding to 8 bits keeps: integers, of which one in each block of 32 is 127. */
function exactly(K: number): (random: Random, i: number) => number {
  return (random, i) => ((i % K) % 32 === 0 ? 127 : random.integer(255) - 127);
}

function product(
  R: number,
  K: number,
  N: number,
  format: PackedFormat,
  extras: Extras = {},
  dtype: OpCase['dtype'] = 'f32',
): OpCase {
  const { bias, residual, gated = false, activation = 'none', norm = 'none', bench, rounded = false } = extras;
  const quantised = format === 'q8' || format === 'q4';
  const exact = quantised && !rounded && norm === 'none';
  const inputs: Record<string, Input> = {
    x: { shape: [R, K], ...(exact ? { value: exactly(K) } : {}) },
    weight: { shape: [N, K], dtype: dtype === 'f32' ? 'f32' : 'bf16' },
  };
  if (bias) inputs.bias = { shape: [N], dtype: 'f32' };
  if (residual) inputs.residual = { shape: [R, gated ? N / 2 : N] };
  if (norm !== 'none') inputs.normWeight = { shape: [K], dtype: 'f32', value: (random) => 1 + 0.3 * random.normal() };
  if (norm === 'layer') inputs.normBias = { shape: [K], dtype: 'f32' };
  const words = [bias && 'bias', activation !== 'none' && activation, gated && 'gated', residual && 'residual'];
  const name = `[${R}, ${K}] x [${N}, ${K}]^T ${format}${norm === 'none' ? '' : ` after ${norm} norm`}${words
    .filter(Boolean)
    .map((word) => ` + ${word}`)
    .join('')}${dtype === 'f32' ? '' : ` ${dtype}`}${rounded ? ', x rounded' : ''}`;
  const parameters = {
    format: formats.indexOf(format),
    activation: activations.indexOf(activation),
    norm: norms.indexOf(norm),
    gated,
    keep: bench === true,
  };
  return { name, dtype, inputs, parameters, ...(bench ? { bench } : {}) };
}

let kept: { weight: Tensor; packed: PackedWeight } | undefined;

/** Calls `use` with the case's weight, packed: anew for a test, once for all runs of a benchmark. */
function withPacked(weight: Tensor, parameters: Parameters, use: (packed: PackedWeight) => Tensors): Tensors {
  if (kept?.weight === weight) return use(kept.packed);
  const [rows, columns] = weight.shape as [number, number];
  const format = formats[Number(parameters.format)]!;
  const packed = PackedWeight.empty({ format, rows, columns, gated: parameters.gated === true, device: weight.device });
  packed.write(weight);
  const result = use(packed);
  if (parameters.keep) {
    kept?.packed[Symbol.dispose]();
    kept = { weight, packed };
  } else packed[Symbol.dispose]();
  return result;
}

function normOf({ normWeight, normBias }: Tensors, parameters: Parameters): { norm?: RowNorm } {
  const kind = norms[Number(parameters.norm)]!;
  if (kind === 'none') return {};
  return { norm: { kind, weight: normWeight!, eps: 1e-5, ...(normBias ? { bias: normBias } : {}) } };
}

const extents = {
  sumLength: (c: OpCase) => c.inputs.x!.shape[1]!,
  bytes: (c: OpCase) => {
    const [N, K] = c.inputs.weight!.shape as [number, number];
    const each = [4, 2, 2, 1.0625, 0.5625][Number(c.parameters!.format)]!;
    const R = c.inputs.x!.shape[0]!;
    return N * K * each + R * (K + N) * 4;
  },
  flops: (c: OpCase) => 2 * c.inputs.x!.shape[0]! * c.inputs.x!.shape[1]! * c.inputs.weight!.shape[0]!,
};

export const packedLinearCases: OpCases = {
  op: 'packed_linear',
  cases: [
    ...formats.flatMap((format) => [
      product(1, 1, 1, format, { bias: true }),
      product(0, 16, 8, format),
      product(3, 40, 0, format),
      product(1, 70, 37, format, { bias: true, residual: true }),
      // All heights of a strip, and several strips; rows past the last whole group, columns past the last block.
      ...[2, 3, 4, 5, 6, 7, 8, 16, 17].map((R) => product(R, 33, 35, format)),
      product(70, 100, 83, format, { bias: true, activation: 'gelu', residual: true }),
      // More than one part of the depth, one panel of groups, one task.
      product(9, 1100, 150, format),
      product(40, 2100, 19, format, { bias: true }),
      product(250, 40, 70, format, { activation: 'relu' }),
      product(5, 64, 34, format, { gated: true, activation: 'silu', bias: true, residual: true }),
      product(2, 45, 26, format, { gated: true, activation: 'gelu' }),
      product(5, 100, 48, format, { norm: 'layer', bias: true, activation: 'gelu_exact' }),
      product(2, 67, 40, format, { norm: 'rms', gated: true, activation: 'silu', rounded: true }),
      product(5, 64, 34, format, { bias: true, residual: true }, 'bf16'),
      product(2, 96, 20, format, { norm: 'rms' }, 'f16'),
    ]),
    product(6, 300, 50, 'q8', { rounded: true }),
    product(6, 300, 50, 'q4', { rounded: true }),
    ...formats.flatMap((format) => [
      ...[1, 8, 512].map((R) => product(R, 1024, 3072, format, { bench: true, bias: true })),
      ...[1, 8, 512].map((R) => product(R, 4096, 1024, format, { bench: true, bias: true, residual: true })),
      product(1, 1024, 4096, format, { bench: true, bias: true, activation: 'gelu', norm: 'layer' }),
      product(1, 1024, 1024, format, { bench: true, bias: true, residual: true }),
    ]),
  ],
  run({ x, weight, bias, residual, ...norm }, parameters) {
    const options: PackedLinearOptions = {
      ...normOf(norm, parameters),
      ...(bias ? { bias } : {}),
      ...(residual ? { residual } : {}),
    };
    const activation = activations[Number(parameters.activation)]!;
    if (activation !== 'none') options.activation = activation;
    return withPacked(weight!, parameters, (packed) => ({ y: packedLinear(x!, packed, options) }));
  },
  ...extents,
};

export const packedArgmaxCases: OpCases = {
  op: 'packed_argmax',
  cases: [
    ...formats.flatMap((format) => [
      product(1, 33, 1, format),
      product(0, 33, 5, format),
      product(1, 64, 100, format),
      product(9, 70, 1003, format),
      product(40, 32, 133, format),
      product(3, 32, 50, format, {}, 'bf16'),
    ]),
    product(4, 64, 77, 'f32', { norm: 'layer' }),
    ...formats.map((format) => product(1, 1024, 250880, format, { bench: true, norm: 'layer' })),
  ],
  run({ x, weight, ...norm }, parameters) {
    return withPacked(weight!, parameters, (packed) => ({ out: packedArgmax(x!, packed, normOf(norm, parameters)) }));
  },
  ...extents,
};
