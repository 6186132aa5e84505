import { argmax, dtypeBytes, nonfiniteIndex, numelOf, squareSum, sum } from '@ds/core-native';
import type { Input, OpCase, OpCases } from '../common/cases';

const dtypes = ['f32', 'bf16', 'f16'] as const;

function shape(shape: number[], dtype: OpCase['dtype'], value?: Input['value']): OpCase {
  return { name: `[${shape}] ${dtype}`, dtype, inputs: { x: { shape, ...(value ? { value } : {}) } } };
}

const sums: OpCase[] = [
  ...dtypes.flatMap((dtype) => [
    shape([1], dtype),
    shape([0], dtype),
    shape([3, 7], dtype),
    shape([4097], dtype),
    shape([33001], dtype),
  ]),
  { ...shape([10_000_000], 'f32'), bench: true },
  { ...shape([10_000_000], 'bf16'), bench: true },
];

export const sumCases: OpCases = {
  op: 'sum',
  cases: sums,
  run: ({ x }) => ({ sum: sum(x!), twice: sum(x!, sum(x!), true) }),
  sumLength: (c) => numelOf(c.inputs.x!.shape),
  bytes: (c) => 3 * numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: (c) => 3 * numelOf(c.inputs.x!.shape),
};

export const squareSumCases: OpCases = {
  op: 'square_sum',
  cases: sums,
  run: ({ x }) => ({ squareSum: squareSum(x!) }),
  sumLength: (c) => numelOf(c.inputs.x!.shape),
  bytes: (c) => numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: (c) => 2 * numelOf(c.inputs.x!.shape),
};

export const nonfiniteIndexCases: OpCases = {
  op: 'nonfinite_index',
  cases: dtypes.flatMap((dtype) => [
    shape([0], dtype),
    shape([33001], dtype),
    shape([33001], dtype, (_, i) => (i >= 32990 ? Number.NaN : i)),
    shape([33], dtype, (_, i) => (i === 32 ? Number.NEGATIVE_INFINITY : 1)),
    shape([40000], dtype, (_, i) => (i === 33000 ? Number.POSITIVE_INFINITY : i === 39000 ? Number.NaN : 0)),
  ]),
  run: ({ x }) => ({ index: nonfiniteIndex(x!) }),
  bytes: (c) => numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: () => 0,
};

export const argmaxCases: OpCases = {
  op: 'argmax',
  cases: [
    ...dtypes.flatMap((dtype) => [
      shape([1, 1], dtype),
      shape([0, 5], dtype),
      shape([9, 7], dtype),
      shape([5, 33], dtype),
      shape([40, 129], dtype, (random) => random.integer(5)),
      shape([3, 5001], dtype),
    ]),
    { ...shape([8, 250880], 'f32'), bench: true },
  ],
  run: ({ x }) => ({ index: argmax(x!) }),
  bytes: (c) => numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: (c) => numelOf(c.inputs.x!.shape),
};
