import { drop, type PackedFormat, PackedWeight, packedRows } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

const formats: PackedFormat[] = ['f32', 'bf16', 'f16', 'q8', 'q4'];

/** Rows of a weight, packed in pieces of `piece` rows, looked up again. */
function lookup(
  ids: number[],
  K: number,
  N: number,
  piece: number,
  format: PackedFormat,
  dtype: OpCase['dtype'] = 'f32',
  bench = false,
): OpCase {
  return {
    name: `${ids.length} of [${N}, ${K}] ${format} of ${dtype}`,
    dtype,
    inputs: {
      ids: { shape: [ids.length], dtype: 'i32', value: (_, i) => ids[i]! },
      weight: { shape: [N, K] },
    },
    parameters: { format: formats.indexOf(format), piece },
    ...(bench ? { bench } : {}),
  };
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

export const packedRowsCases: OpCases = {
  op: 'packed_rows',
  cases: formats.flatMap((format) => [
    lookup([0], 1, 1, 1, format),
    lookup([], 5, 3, 3, format),
    ...(['f32', 'bf16', 'f16'] as const).map((dtype) => lookup(upTo(35), 67, 35, 11, format, dtype)),
    lookup([3, 99, 3], 64, 100, 100, format),
    lookup(upTo(1), 1024, 3072, 3072, format, 'f32', true),
  ]),
  run({ ids, weight }, { format, piece }) {
    const [rows, columns] = weight!.shape as [number, number];
    using packed = PackedWeight.empty({ format: formats[Number(format)]!, rows, columns, device: weight!.device });
    for (let row = 0; row < rows; row += Number(piece)) {
      const part = weight!.view([Math.min(Number(piece), rows - row), columns], row * columns);
      packed.write(part, row);
      drop(part);
    }
    return { y: packedRows(packed, ids!) };
  },
  bytes: (c) => {
    const [N, K] = c.inputs.weight!.shape as [number, number];
    return N * K * (4 + [4, 2, 2, 1.0625, 0.5625][Number(c.parameters!.format)]!);
  },
  flops: () => 0,
};
