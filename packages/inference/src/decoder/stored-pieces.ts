/** Reads the rows of a weight out of the tensors that hold them, a piece at a time. */
import { type DType, dtypeBytes } from '@ds/core-native';
import type { TensorSource } from '@ds/io';
import type { StoredRows, StoredWeight } from '@ds/nn';

/** What weights may be stored as. */
export const fileDtypes = ['f32', 'bf16', 'f16'] as const satisfies readonly DType[];
export type FileFloat = (typeof fileDtypes)[number];

/** Some rows of a weight, from `firstRow` on; `bytes` may be written over when the next piece is asked for. */
export interface Piece {
  readonly tensor: string;
  readonly dtype: FileFloat;
  readonly firstRow: number;
  readonly rows: number;
  readonly bytes: Uint8Array;
}

/**
 * Gives a weight in pieces of whole rows, about `pieceBytes` each. A transposed tensor is read as a whole first.
 *
 * @param names the file's name of each stored tensor
 */
export function* piecesOf(
  weight: StoredWeight,
  source: TensorSource,
  names: ReadonlyMap<string, string>,
  pieceBytes: number,
): Generator<Piece, void, undefined> {
  let firstRow = 0;
  for (const part of weight.parts) {
    const tensor = names.get(part.tensor)!;
    const dtype = source.info(tensor).dtype as FileFloat;
    const columns = weight.shape[1] ?? 1;
    const rowsAtOnce = Math.max(1, Math.floor(pieceBytes / (columns * dtypeBytes[dtype])));
    const fill = part.transposed
      ? fromTransposed(source.tensor(tensor).bytes, part, columns, dtypeBytes[dtype])
      : fromRows(source, tensor, part, columns, dtypeBytes[dtype]);
    const total = part.run * part.runs;
    const buffer = new Uint8Array(Math.min(rowsAtOnce, total) * columns * dtypeBytes[dtype]);
    for (let row = 0; row < total; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, total - row);
      const bytes = buffer.subarray(0, rows * columns * dtypeBytes[dtype]);
      fill(bytes, row, rows);
      yield { tensor, dtype, firstRow: firstRow + row, rows, bytes };
    }
    firstRow += total;
  }
}

type Fill = (target: Uint8Array, row: number, rows: number) => void;

/** Reads run by run: what lies together comes in one call. */
function fromRows(source: TensorSource, tensor: string, part: StoredRows, columns: number, width: number): Fill {
  const { first, run, stride } = part;
  return (target, row, rows) => {
    for (let done = 0; done < rows; ) {
      const [whole, within] = [Math.floor((row + done) / run), (row + done) % run];
      const count = Math.min(run - within, rows - done);
      const bytes = target.subarray(done * columns * width, (done + count) * columns * width);
      source.readInto(tensor, bytes, (first + whole * stride + within) * columns, count * columns);
      done += count;
    }
  };
}

/** Columns of the stored [columns, stored rows] as rows, in blocks that stay in the cache. */
function fromTransposed(stored: Uint8Array, { shape, first }: StoredRows, columns: number, width: number): Fill {
  const block = 64;
  const array = (bytes: Uint8Array) =>
    width === 4
      ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
      : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const from = array(stored);
  const storedRows = shape[1]!;
  return (target, row, rows) => {
    const to = array(target);
    for (let r = 0; r < rows; r += block)
      for (let c = 0; c < columns; c += block)
        for (let i = r; i < Math.min(rows, r + block); i++)
          for (let k = c; k < Math.min(columns, c + block); k++)
            to[i * columns + k] = from[k * storedRows + first + row + i]!;
  };
}
