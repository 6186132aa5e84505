/** What brings sequences of any length, and models trained on shorter ones, to sparse attention. */
import { DsError, type Tensor } from '@ds/core-native';

export interface PaddedRows {
  /** B rows of T tokens, T the longest row rounded up to whole blocks. */
  readonly ids: readonly Int32Array[];
  /** B rows of T numbers: 1 where a token is real. */
  readonly mask: readonly Uint8Array[];
  /** Tokens of each row before padding. */
  readonly lengths: readonly number[];
}

/**
 * Pads rows on the right to one length that is a multiple of the block.
 * @throws CONFIG for a block below 1
 */
export function padToBlockSize(rows: readonly ArrayLike<number>[], block: number, padId: number): PaddedRows {
  if (!Number.isInteger(block) || block < 1)
    throw new DsError({ code: 'CONFIG', op: 'padToBlockSize', expected: 'a block >= 1', actual: String(block) });
  const lengths = rows.map((row) => row.length);
  const T = Math.ceil(Math.max(0, ...lengths) / block) * block;
  const padded = rows.map((row) => {
    const ids = new Int32Array(T).fill(padId);
    ids.set(row);
    return ids;
  });
  return { ids: padded, mask: lengths.map((n) => new Uint8Array(T).fill(1, 0, n)), lengths };
}

/**
 * Shows each sequence of a padded result without its padding; the views share memory with `x`.
 *
 * @param x [B, T, ...] or [B * T, C], as hidden states are
 * @param lengths tokens of each sequence
 * @returns B tensors [length, C], C all elements of a token
 * @throws SHAPE
 */
export function unpad(x: Tensor, lengths: readonly number[]): Tensor[] {
  const B = lengths.length;
  const tokens = x.shape[0] === B && x.shape.length > 2 ? B * x.dim(1) : x.dim(0);
  const T = B === 0 ? 0 : tokens / B;
  const wrong = lengths.find((n) => n > T);
  if (!Number.isInteger(T) || wrong !== undefined)
    throw new DsError({
      code: 'SHAPE',
      op: 'unpad',
      expected: `${B} sequences of one length that none of [${lengths.join(', ')}] exceeds`,
      actual: `[${x.shape.join(', ')}]`,
      hint: 'pass the lengths that padToBlockSize() gave',
    });
  const C = tokens === 0 ? 0 : x.numel / tokens;
  return lengths.map((n, b) => x.view([n, C], b * T * C));
}

/**
 * Lengthens a table of learned positions by repeating its rows, so that a model trained on short sequences starts to learn long ones
 * from what it knows of near places.
 *
 * @param table [positions, width], row by row
 * @param options.reserved rows at the start that stand for no position and are kept once (RoBERTa and OPT: 2)
 * @returns [to, width]
 * @throws SHAPE when nothing would be longer, or nothing can be repeated
 */
export function extendPositionEmbedding(
  table: Float32Array,
  options: { positions: number; to: number; reserved?: number },
): Float32Array {
  const { positions, to, reserved = 0 } = options;
  const width = table.length / positions;
  if (!Number.isInteger(width) || to < positions || reserved >= positions)
    throw new DsError({
      code: 'SHAPE',
      op: 'extendPositionEmbedding',
      expected: `a table of whole rows, more than ${reserved} reserved ones, and at least as many rows afterwards`,
      actual: `${table.length} numbers in ${positions} rows, to ${to}`,
      hint: 'positions counts the rows of the table, reserved ones included',
    });
  const extended = new Float32Array(to * width);
  extended.set(table);
  for (let row = positions; row < to; row++) {
    const from = reserved + ((row - reserved) % (positions - reserved));
    extended.set(table.subarray(from * width, (from + 1) * width), row * width);
  }
  return extended;
}
