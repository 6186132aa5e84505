/** Token files in Megatron's layout, PREFIX.bin with PREFIX.idx: read piece by piece, written atomically. */
import fs from 'node:fs';
import { DsError } from '@ds/core-native';
import { AtomicFile, writeFileAtomically } from '../files/atomic-file';
import { openRegularFile, readBoundedFile, readExactly } from '../files/bounded-file';
import { formatIndex, parseIndex, TOKEN_BYTES, type TokenDtype, type TokenIndex } from './indexed-format';

export interface OpenIndexedTokensOptions {
  /** Refuse ids at or above it when they are read: the data was made with another tokenizer. Default: no check. */
  readonly vocabSize?: number;
}

/** Index files are held in memory; this is 80 million documents. */
const MAX_INDEX_BYTES = 2 ** 31 - 1;

/** Open token files. Close them, or declare them with `using`. */
export class IndexedTokens {
  readonly prefix: string;
  readonly dtype: TokenDtype;
  /** Tokens of each sequence, by number. */
  readonly sizes: Int32Array;
  readonly tokenCount: number;
  readonly #index: TokenIndex;
  readonly #vocabSize: number;
  #fd: number | undefined;
  #scratch = new Uint8Array(1 << 16);

  private constructor(prefix: string, fd: number, index: TokenIndex, vocabSize: number) {
    this.prefix = prefix;
    this.#fd = fd;
    this.#index = index;
    this.#vocabSize = vocabSize;
    this.dtype = index.dtype;
    this.sizes = index.sizes;
    this.tokenCount = index.sizes.reduce((a, b) => a + b, 0);
  }

  /** Opens PREFIX.bin and PREFIX.idx and checks one against the other. @throws DsError IO, FORMAT */
  static open(prefix: string, options: OpenIndexedTokensOptions = {}): IndexedTokens {
    const op = 'openIndexedTokens';
    const index = readBoundedFile(op, `${prefix}.idx`, MAX_INDEX_BYTES);
    const { fd, bytes } = openRegularFile(op, `${prefix}.bin`);
    try {
      const vocabSize = options.vocabSize ?? 2 ** 31;
      return new IndexedTokens(prefix, fd, parseIndex(index, bytes, `${prefix}.idx`), vocabSize);
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  /** Sequences in the file; Megatron's own tools write one per document. */
  get sequenceCount(): number {
    return this.sizes.length;
  }

  /** Sequence number where each document begins, and the number of sequences at the end. */
  get documents(): Float64Array {
    return this.#index.documents;
  }

  /** Returns all tokens of a sequence. @throws DsError IO, FORMAT */
  sequence(number: number): Int32Array {
    const ids = new Int32Array(this.sizes[number] ?? 0);
    this.read(number, 0, ids);
    return ids;
  }

  /**
   * Fills `target` with the tokens of a sequence from `offset` on.
   *
   * @throws DsError SHAPE if the sequence has not that many; IO; FORMAT for an id below 0 or outside the vocabulary
   */
  read(sequence: number, offset: number, target: Int32Array): void {
    const size = this.sizes[sequence];
    if (size === undefined || offset < 0 || offset + target.length > size) {
      const expected = `a range within the ${size ?? 0} tokens of sequence ${sequence} of ${this.prefix}`;
      const hint = `There are ${this.sequenceCount} sequences.`;
      throw new DsError({
        code: 'SHAPE',
        op: 'readTokens',
        expected,
        actual: `${offset} to ${offset + target.length}`,
        hint,
      });
    }
    const itemBytes = TOKEN_BYTES[this.dtype];
    const bytes = target.length * itemBytes;
    if (bytes > this.#scratch.length) this.#scratch = new Uint8Array(bytes * 2);
    const raw = this.#scratch.subarray(0, bytes);
    const position = this.#index.pointers[sequence]! + offset * itemBytes;
    readExactly('readTokens', `${this.prefix}.bin`, this.#descriptor(), raw, position);
    widen(raw, this.dtype, target);
    const wrong = target.findIndex((id) => id < 0 || id >= this.#vocabSize);
    if (wrong < 0) return;
    const expected = `ids from 0 to ${this.#vocabSize - 1} in ${this.prefix}.bin (sequence ${sequence}, token ${offset + wrong})`;
    const hint = 'The data was made with another tokenizer, or is damaged; encode the text again.';
    throw new DsError({ code: 'FORMAT', op: 'readTokens', expected, actual: `${target[wrong]}`, hint });
  }

  close(): void {
    if (this.#fd === undefined) return;
    fs.closeSync(this.#fd);
    this.#fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #descriptor(): number {
    if (this.#fd !== undefined) return this.#fd;
    const expected = `open token files ${this.prefix}`;
    const hint = 'Read before close(), or open them again.';
    throw new DsError({ code: 'DISPOSED', op: 'readTokens', expected, actual: 'closed ones', hint });
  }
}

/** Widens little-endian ids to 32 bits; an i64 outside their range becomes -1, which no vocabulary holds. */
function widen(raw: Uint8Array, dtype: TokenDtype, target: Int32Array): void {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  for (let i = 0; i < target.length; i++) {
    if (dtype === 'u16') target[i] = view.getUint16(2 * i, true);
    else if (dtype === 'i32') target[i] = view.getInt32(4 * i, true);
    else if (dtype === 'u8') target[i] = raw[i]!;
    else if (dtype === 'i8') target[i] = view.getInt8(i);
    else if (dtype === 'i16') target[i] = view.getInt16(2 * i, true);
    else target[i] = view.getInt32(8 * i + 4, true) === 0 ? view.getInt32(8 * i, true) : -1;
  }
}

/** Chooses the type Megatron chooses: 16 bits for vocabularies below 65,500, else 32. */
export function tokenDtypeFor(vocabSize: number): 'u16' | 'i32' {
  return vocabSize < 65_500 ? 'u16' : 'i32';
}

const FLUSH_BYTES = 1 << 20;

/** Token files being written. Without `finish` they leave nothing behind. */
export class IndexedTokensWriter {
  readonly prefix: string;
  readonly dtype: 'u16' | 'i32';
  readonly #bin: AtomicFile;
  readonly #sizes: number[] = [];
  #pending = Buffer.alloc(FLUSH_BYTES);
  #pendingBytes = 0;
  #tokens = 0;

  private constructor(prefix: string, dtype: 'u16' | 'i32', bin: AtomicFile) {
    this.prefix = prefix;
    this.dtype = dtype;
    this.#bin = bin;
  }

  /** Starts PREFIX.bin; the folder must exist. @throws DsError IO */
  static create(prefix: string, dtype: 'u16' | 'i32'): IndexedTokensWriter {
    return new IndexedTokensWriter(prefix, dtype, AtomicFile.create('writeIndexedTokens', `${prefix}.bin`));
  }

  get documentCount(): number {
    return this.#sizes.length;
  }

  get tokenCount(): number {
    return this.#tokens;
  }

  /** Appends a document. @throws DsError DTYPE for an id that the type cannot hold; IO */
  addDocument(ids: ArrayLike<number>): void {
    const itemBytes = TOKEN_BYTES[this.dtype];
    const highest = this.dtype === 'u16' ? 0xffff : 0x7fffffff;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (!Number.isInteger(id) || id < 0 || id > highest) {
        this.abort();
        const expected = `ids from 0 to ${highest} for ${this.dtype} (document ${this.documentCount}, token ${i})`;
        const hint = 'Choose the type with tokenDtypeFor(vocabSize).';
        throw new DsError({ code: 'DTYPE', op: 'writeIndexedTokens', expected, actual: `${id}`, hint });
      }
      if (this.#pendingBytes + itemBytes > FLUSH_BYTES) this.#flush();
      if (this.dtype === 'u16') this.#pending.writeUInt16LE(id, this.#pendingBytes);
      else this.#pending.writeInt32LE(id, this.#pendingBytes);
      this.#pendingBytes += itemBytes;
    }
    this.#sizes.push(ids.length);
    this.#tokens += ids.length;
  }

  /**
   * Gives both files their names. An older index goes first and the new one comes last, so that no crash leaves an index
   * beside a `.bin` that is not its own.
   * @throws DsError IO
   */
  finish(): void {
    this.#flush();
    fs.rmSync(`${this.prefix}.idx`, { force: true });
    this.#bin.commit();
    writeFileAtomically('writeIndexedTokens', `${this.prefix}.idx`, formatIndex(this.dtype, this.#sizes));
  }

  /** Gives up; nothing is left behind. Harmless after `finish`. */
  abort(): void {
    this.#bin.abort();
  }

  [Symbol.dispose](): void {
    this.abort();
  }

  #flush(): void {
    this.#bin.append(this.#pending.subarray(0, this.#pendingBytes));
    this.#pendingBytes = 0;
  }
}
