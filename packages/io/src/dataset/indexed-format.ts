/**
 * The index file of Megatron's token files ("MMIDIDX"): where each document lies in the `.bin` beside it.
 *
 * Little-endian, unaligned: 9 bytes magic, u64 version 1, u8 dtype code, u64 sequences S, u64 document entries D,
 * i32 sizes[S], i64 pointers[S] (bytes into the `.bin`), i64 documents[D] (first 0, then the end of each document).
 * Source: Megatron-LM, its indexed dataset.
 */
import { DsError } from '@ds/core-native';

export const HEADER_BYTES = 34;
const MAGIC = 'MMIDIDX\0\0';
const VERSION = 1;

/** Integer types a token file may have. */
export type TokenDtype = 'u8' | 'i8' | 'i16' | 'u16' | 'i32' | 'i64';

const CODES: ReadonlyMap<number, TokenDtype> = new Map([
  [1, 'u8'],
  [2, 'i8'],
  [3, 'i16'],
  [4, 'i32'],
  [5, 'i64'],
  [8, 'u16'],
]);

export const TOKEN_BYTES: Readonly<Record<TokenDtype, number>> = { u8: 1, i8: 1, i16: 2, u16: 2, i32: 4, i64: 8 };

/** What an index says, checked against the size of its `.bin`. */
export interface TokenIndex {
  readonly dtype: TokenDtype;
  /** Tokens of each sequence. */
  readonly sizes: Int32Array;
  /** First byte of each sequence in the `.bin`. */
  readonly pointers: Float64Array;
  /** Sequence number where each document begins; the last entry is the number of sequences. */
  readonly documents: Float64Array;
}

/** Says how many bytes the whole index must have, from its first 34. @throws DsError FORMAT */
export function parseIndexHeader(
  header: Uint8Array,
  fileBytes: number,
  path: string,
): { dtype: TokenDtype; sequences: number; documents: number } {
  const fail = failIn(path);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const magic = Buffer.from(header.subarray(0, MAGIC.length)).toString('latin1');
  if (magic !== MAGIC) throw fail('the magic MMIDIDX at offset 0', JSON.stringify(magic));
  const version = readU64(view, 9);
  if (version !== VERSION) throw fail('version 1 at offset 9', `${version}`);
  const code = view.getUint8(17);
  const dtype = CODES.get(code);
  if (!dtype) throw fail('an integer dtype code (1, 2, 3, 4, 5 or 8) at offset 17', `${code}`);
  const sequences = readU64(view, 18);
  const documents = readU64(view, 26);
  const expected = HEADER_BYTES + sequences * 12 + documents * 8;
  if (expected !== fileBytes) {
    const what = `${HEADER_BYTES} + 12 * ${sequences} sequences + 8 * ${documents} document entries = ${expected} bytes`;
    throw fail(what, `${fileBytes}`);
  }
  return { dtype, sequences, documents };
}

/**
 * Parses a whole index.
 *
 * @param bytes the index file
 * @param binBytes size of the `.bin`
 * @throws DsError FORMAT naming offset or sequence
 */
export function parseIndex(bytes: Uint8Array, binBytes: number, path: string): TokenIndex {
  const fail = failIn(path);
  if (bytes.byteLength < HEADER_BYTES) throw fail(`at least ${HEADER_BYTES} bytes`, `${bytes.byteLength}`);
  const header = parseIndexHeader(bytes.subarray(0, HEADER_BYTES), bytes.byteLength, path);
  const { dtype, sequences } = header;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sizes = new Int32Array(sequences);
  const pointers = new Float64Array(sequences);
  const pointersAt = HEADER_BYTES + 4 * sequences;
  const itemBytes = TOKEN_BYTES[dtype];
  for (let s = 0; s < sequences; s++) {
    const size = view.getInt32(HEADER_BYTES + 4 * s, true);
    const pointer = readU64(view, pointersAt + 8 * s);
    if (size < 0) throw fail(`a size of 0 or more for sequence ${s}`, `${size}`);
    if (pointer + size * itemBytes > binBytes) {
      const expected = `sequence ${s} within the ${binBytes} bytes of its .bin`;
      throw fail(expected, `${size} ${dtype} tokens at byte ${pointer}`);
    }
    sizes[s] = size;
    pointers[s] = pointer;
  }
  const documents = new Float64Array(header.documents);
  const documentsAt = pointersAt + 8 * sequences;
  for (let d = 0; d < documents.length; d++) {
    documents[d] = readU64(view, documentsAt + 8 * d);
    if (documents[d]! < (d === 0 ? 0 : documents[d - 1]!)) {
      throw fail(`document entries that do not fall (entry ${d})`, `${documents[d]} after ${documents[d - 1]}`);
    }
  }
  if (documents[0] !== 0 || documents.at(-1) !== sequences) {
    throw fail(`document entries from 0 to ${sequences}`, `${documents[0]} to ${documents.at(-1)}`);
  }
  return { dtype, sizes, pointers, documents };
}

/** Writes an index of one sequence per document, laid end to end. */
export function formatIndex(dtype: TokenDtype, sizes: ArrayLike<number>): Uint8Array {
  const count = sizes.length;
  const bytes = new Uint8Array(HEADER_BYTES + 12 * count + 8 * (count + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from(MAGIC, 'latin1'));
  view.setBigUint64(9, BigInt(VERSION), true);
  view.setUint8(17, [...CODES].find(([, name]) => name === dtype)![0]);
  view.setBigUint64(18, BigInt(count), true);
  view.setBigUint64(26, BigInt(count + 1), true);
  let pointer = 0;
  for (let s = 0; s < count; s++) {
    view.setInt32(HEADER_BYTES + 4 * s, sizes[s]!, true);
    view.setBigUint64(HEADER_BYTES + 4 * count + 8 * s, BigInt(pointer), true);
    view.setBigUint64(HEADER_BYTES + 12 * count + 8 * (s + 1), BigInt(s + 1), true);
    pointer += sizes[s]! * TOKEN_BYTES[dtype];
  }
  return bytes;
}

/** Reads 64 bits as a number; beyond 2^53 it is inexact, but larger than any file, so every check on it fails. */
function readU64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

function failIn(path: string): (expected: string, actual: string) => DsError {
  const hint = 'The index is damaged or belongs to another .bin; write or fetch both again.';
  return (expected, actual) =>
    new DsError({ code: 'FORMAT', op: 'openIndexedTokens', expected: `${expected} in ${path}`, actual, hint });
}
