/**
 * Applies the merges of a byte-level BPE to one piece of text: always the pair of lowest rank, leftmost first.
 * Source: Sennrich et al. 2016, section 3.2, over bytes as in Radford et al. 2019.
 */
import { BYTE_CHARS } from './byte-level';
import { PairTable } from './pair-table';

/** Up to this many bytes the plain search for the lowest rank beats a heap; longer pieces are left to the caller. */
export const MAX_PIECE_BYTES = 512;

const NO_RANK = 0x7fffffff;

/** Byte-level BPE over pieces of up to `MAX_PIECE_BYTES` bytes. Not re-entrant: it reuses its buffers. */
export class BytePairEncoder {
  readonly #byteIds = new Int32Array(256);
  readonly #pairs: PairTable;
  readonly #rankOf: Int32Array;
  readonly #mergedId: Int32Array;
  readonly #ids = new Int32Array(MAX_PIECE_BYTES);
  readonly #ranks = new Int32Array(MAX_PIECE_BYTES);
  readonly #utf8 = new Uint8Array(MAX_PIECE_BYTES);
  readonly #textEncoder = new TextEncoder();

  /**
   * @param vocabulary id of each token; must hold all 256 byte characters and the result of every merge
   * @param merges pairs of tokens by rank; of equal pairs the last counts, as in the Rust library
   */
  constructor(vocabulary: ReadonlyMap<string, number>, merges: readonly (readonly [string, string])[]) {
    for (const [byte, char] of BYTE_CHARS.entries()) this.#byteIds[byte] = vocabulary.get(char)!;
    this.#pairs = new PairTable(merges.length);
    this.#rankOf = new Int32Array(merges.length);
    this.#mergedId = new Int32Array(merges.length);
    for (const [rank, [left, right]] of merges.entries()) {
      const pair = this.#pairs.number(vocabulary.get(left)!, vocabulary.get(right)!);
      this.#rankOf[pair] = rank;
      this.#mergedId[pair] = vocabulary.get(left + right)!;
    }
  }

  /** Returns the ids of a well-formed piece in a view that the next call overwrites; undefined if it is too long. */
  encode(piece: string): Int32Array | undefined {
    if (piece.length > MAX_PIECE_BYTES) return undefined;
    const { read, written } = this.#textEncoder.encodeInto(piece, this.#utf8);
    if (read < piece.length) return undefined;
    const ids = this.#ids;
    for (let i = 0; i < written; i++) ids[i] = this.#byteIds[this.#utf8[i]!]!;
    return ids.subarray(0, this.#merge(written));
  }

  /** Merges `#ids[0 … count)` in place and returns how many remain. */
  #merge(count: number): number {
    const ids = this.#ids;
    const ranks = this.#ranks;
    for (let i = 0; i + 1 < count; i++) ranks[i] = this.#rank(ids[i]!, ids[i + 1]!);
    for (;;) {
      let best = NO_RANK;
      let at = -1;
      for (let i = 0; i + 1 < count; i++) {
        if (ranks[i]! < best) {
          best = ranks[i]!;
          at = i;
        }
      }
      if (at < 0) return count;
      ids[at] = this.#mergedId[this.#pairs.find(ids[at]!, ids[at + 1]!)]!;
      ids.copyWithin(at + 1, at + 2, count);
      ranks.copyWithin(at, at + 1, count);
      count--;
      if (at > 0) ranks[at - 1] = this.#rank(ids[at - 1]!, ids[at]!);
      if (at + 1 < count) ranks[at] = this.#rank(ids[at]!, ids[at + 1]!);
    }
  }

  #rank(left: number, right: number): number {
    const pair = this.#pairs.find(left, right);
    return pair < 0 ? NO_RANK : this.#rankOf[pair]!;
  }
}
