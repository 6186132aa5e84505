/** Ready-made rows of ids, taken in order, wrapping around, never shuffled: for exact comparisons between programs. */
import { DsError } from '@ds/core-native';
import { readBoundedFile } from '../files/bounded-file';
import { isJsonObject, type JsonValue, ownValue, parseJson, shorten } from '../json/strict-json';
import { LIMITS } from '../limits';
import type { TokenDataset } from './token-dataset';

const OP = 'openTokenRows';

export interface RowDatasetOptions {
  /** Refuse ids at or above it. Default: no check. */
  readonly vocabSize?: number;
}

/** Rows of T + 1 ids each. Sample i is row i modulo their number. */
export class RowDataset implements TokenDataset {
  readonly sequenceLength: number;
  readonly length: number;
  readonly #ids: Int32Array;

  /** @throws DsError FORMAT for rows of different length, too short, or with something that is no id */
  constructor(rows: readonly (readonly number[])[], options: RowDatasetOptions = {}, source = 'rows') {
    const fail = (expected: string, actual: string): DsError => {
      const hint = 'Write {"ids": [[…], …]} with equal rows of token ids.';
      return new DsError({ code: 'FORMAT', op: OP, expected: `${expected} in ${source}`, actual, hint });
    };
    const width = rows[0]?.length ?? 0;
    if (width < 2) throw fail('rows of at least 2 ids', rows.length === 0 ? 'no row' : `${width}`);
    const highest = Math.min(options.vocabSize ?? 2 ** 31, 2 ** 31) - 1;
    this.#ids = new Int32Array(rows.length * width);
    for (const [r, row] of rows.entries()) {
      if (row.length !== width) throw fail(`rows of ${width} ids, as the first`, `${row.length} in row ${r}`);
      for (const [i, id] of row.entries()) {
        if (!Number.isInteger(id) || id < 0 || id > highest) {
          throw fail(`ids from 0 to ${highest}`, `${shorten(String(id))} in row ${r}, place ${i}`);
        }
        this.#ids[r * width + i] = id;
      }
    }
    this.sequenceLength = width - 1;
    this.length = rows.length;
  }

  /** Reads a JSON file `{"ids": [[…], …]}`. @throws DsError IO, FORMAT */
  static open(path: string, options: RowDatasetOptions = {}): RowDataset {
    const root = parseJson(OP, readBoundedFile(OP, path, LIMITS.tokenIdsJsonBytes), { source: path });
    const rows = isJsonObject(root) ? ownValue(root, 'ids') : undefined;
    if (Array.isArray(rows) && rows.every(isRow)) return new RowDataset(rows, options, path);
    const hint = 'Write {"ids": [[…], …]} with equal rows of token ids.';
    const expected = `an object with "ids", a list of lists, in ${path}`;
    throw new DsError({ code: 'FORMAT', op: OP, expected, actual: 'something else', hint });
  }

  /** Returns row `index` modulo `length`. */
  sample(index: number): Int32Array {
    if (Number.isSafeInteger(index) && index >= 0) {
      const width = this.sequenceLength + 1;
      const row = index % this.length;
      return this.#ids.slice(row * width, (row + 1) * width);
    }
    const hint = 'Samples are numbered from 0.';
    throw new DsError({
      code: 'CONFIG',
      op: 'sample',
      expected: 'a sample number of 0 or more',
      actual: `${index}`,
      hint,
    });
  }
}

/** Narrows to a list; its items are checked one by one where they are used. */
function isRow(value: JsonValue): value is number[] {
  return Array.isArray(value);
}
