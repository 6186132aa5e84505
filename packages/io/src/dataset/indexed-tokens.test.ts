import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import { mutate, randomFrom } from '../../test-support/mutate';
import { loadTokenizer } from '../tokenizer/load-tokenizer';
import { writeTokenFiles } from './corpus';
import { formatIndex, HEADER_BYTES, parseIndex, TOKEN_BYTES, type TokenIndex } from './indexed-format';
import { IndexedTokens, IndexedTokensWriter, tokenDtypeFor } from './indexed-tokens';
import { readJsonLines } from './json-lines';

const golden = join(__dirname, '../../../../test/golden');
const reference = JSON.parse(fs.readFileSync(join(golden, 'megatron-data/golden.json'), 'utf8'));
let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  fs.rmSync(folder, { recursive: true });
});

const sha256 = (path: string): string => createHash('sha256').update(fs.readFileSync(path)).digest('hex');

describe('IndexedTokens', () => {
  test.each(['u16', 'i32'] as const)('reads the documents of the reference (%s)', (dtype) => {
    using tokens = IndexedTokens.open(join(golden, `megatron-data/${dtype}_text_document`), { vocabSize: 512 });
    expect(tokens.dtype).toBe(dtype);
    expect([tokens.sequenceCount, tokens.tokenCount]).toEqual([8, 593]);
    expect([...tokens.documents]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for (const [i, ids] of reference.docs.entries()) expect([...tokens.sequence(i)]).toEqual(ids);
    const part = new Int32Array(5);
    tokens.read(3, 7, part);
    expect([...part]).toEqual(reference.docs[3].slice(7, 12));
  });

  test.each(['u8', 'i8', 'i16', 'i64'] as const)('reads the dtype %s', (dtype) => {
    const ids = [0, 1, 100, 127];
    const bytes = Buffer.alloc(4 * TOKEN_BYTES[dtype]);
    for (const [i, id] of ids.entries()) bytes.writeUIntLE(id, i * TOKEN_BYTES[dtype], 1);
    const prefix = join(folder, 'x');
    fs.writeFileSync(`${prefix}.bin`, bytes);
    fs.writeFileSync(`${prefix}.idx`, formatIndex(dtype, [1, 3]));
    using tokens = IndexedTokens.open(prefix);
    expect([...tokens.sequence(0), ...tokens.sequence(1)]).toEqual(ids);
  });

  test('refuses ids outside the vocabulary, negative ones and 64-bit ones', () => {
    const prefix = join(folder, 'x');
    fs.writeFileSync(`${prefix}.bin`, Buffer.from(Int32Array.of(5, 512, -3, 1, 2, 2 ** 31 - 1).buffer));
    fs.writeFileSync(`${prefix}.idx`, formatIndex('i32', [1, 3, 2]));
    using tokens = IndexedTokens.open(prefix, { vocabSize: 512 });
    expect([...tokens.sequence(0)]).toEqual([5]);
    expect(() => tokens.sequence(1)).toThrow(/ids from 0 to 511 in .*x.bin \(sequence 1, token 0\), got 512/);
    using unchecked = IndexedTokens.open(prefix);
    expect(() => unchecked.sequence(1)).toThrow(/\(sequence 1, token 1\), got -3/);
    fs.writeFileSync(`${prefix}.idx`, formatIndex('i64', [3]));
    using wide = IndexedTokens.open(prefix);
    expect(() => wide.sequence(0)).toThrow(expect.objectContaining({ code: 'FORMAT' }));
    expect(() => tokens.read(2, 1, new Int32Array(2))).toThrow(/within the 2 tokens of sequence 2/);
    expect(() => tokens.read(9, 0, new Int32Array(1))).toThrow(/within the 0 tokens of sequence 9/);
  });

  test('reports files that shrink or are closed', () => {
    const prefix = join(folder, 'x');
    for (const end of ['bin', 'idx'])
      fs.cpSync(join(golden, `megatron-data/u16_text_document.${end}`), `${prefix}.${end}`);
    const tokens = IndexedTokens.open(prefix);
    fs.truncateSync(`${prefix}.bin`, 100);
    expect(() => tokens.sequence(7)).toThrow(expect.objectContaining({ code: 'IO' }));
    expect(() => IndexedTokens.open(prefix)).toThrow(/sequence 1 within the 100 bytes of its .bin/);
    tokens.close();
    tokens.close();
    expect(() => tokens.sequence(0)).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    expect(() => IndexedTokens.open(join(folder, 'absent'))).toThrow(/absent.idx/);
  });
});

describe('IndexedTokensWriter', () => {
  test.each(['u16', 'i32'] as const)('writes the files of the reference byte for byte (%s)', (dtype) => {
    const prefix = join(folder, 'copy');
    using writer = IndexedTokensWriter.create(prefix, dtype);
    for (const ids of reference.docs) writer.addDocument(ids);
    expect([writer.documentCount, writer.tokenCount]).toEqual([8, 593]);
    expect(fs.existsSync(`${prefix}.bin`)).toBe(false);
    writer.finish();
    for (const end of ['bin', 'idx']) {
      expect(sha256(`${prefix}.${end}`)).toBe(reference.files[`${dtype}_text_document.${end}`].sha256);
    }
    expect(fs.readdirSync(folder).sort()).toEqual(['copy.bin', 'copy.idx']);
  });

  test('keeps documents that cross its buffer, empty ones and single tokens', () => {
    const prefix = join(folder, 'big');
    const documents = [[], [1], Array.from({ length: 700_000 }, (_, i) => (i * 7919) % 65536), [65535], []];
    using writer = IndexedTokensWriter.create(prefix, 'u16');
    for (const ids of documents) writer.addDocument(ids);
    writer.finish();
    using tokens = IndexedTokens.open(prefix);
    for (const [i, ids] of documents.entries())
      expect(Buffer.compare(Buffer.from(tokens.sequence(i).buffer), Buffer.from(Int32Array.from(ids).buffer))).toBe(0);
  });

  test('refuses ids that the type cannot hold, and leaves nothing', () => {
    for (const [dtype, id] of [
      ['u16', 65536],
      ['u16', -1],
      ['i32', 2 ** 31],
      ['i32', 0.5],
    ] as const) {
      using writer = IndexedTokensWriter.create(join(folder, 'x'), dtype);
      expect(() => writer.addDocument([1, id])).toThrow(/\(document 0, token 1\)/);
      expect(fs.readdirSync(folder)).toEqual([]);
    }
  });

  test('never leaves an index beside a .bin of another run, whichever operation fails', () => {
    const prefix = join(folder, 'data');
    const write = (id: number): void => {
      using writer = IndexedTokensWriter.create(prefix, 'u16');
      // The second version has another shape, but its .bin would satisfy the first one's index.
      if (id === 1) writer.addDocument([1, 1, 1]);
      else for (const count of [1, 5]) writer.addDocument(new Array(count).fill(id));
      writer.finish();
    };
    for (const operation of ['openSync', 'writeSync', 'fsyncSync', 'renameSync', 'rmSync'] as const) {
      const original = fs[operation] as (...args: unknown[]) => unknown;
      for (let failing = 1, calls = 1; calls >= failing - 1; failing++) {
        write(1);
        calls = 0;
        const spy = jest.spyOn(fs, operation as 'fsyncSync').mockImplementation(((...args: unknown[]) => {
          if (++calls === failing) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
          return original.apply(fs, args);
        }) as typeof fs.fsyncSync);
        try {
          write(2);
        } catch {
          // Any failure will do; what counts is what it leaves.
        }
        spy.mockRestore();
        expect(fs.readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
        if (!fs.existsSync(`${prefix}.idx`)) continue;
        using tokens = IndexedTokens.open(prefix);
        expect(['1,1,1', '2']).toContain(tokens.sequence(0).join());
      }
    }
  });

  test('chooses 16 bits below 65,500 tokens', () => {
    expect([tokenDtypeFor(512), tokenDtypeFor(65_499), tokenDtypeFor(65_500)]).toEqual(['u16', 'u16', 'i32']);
  });
});

test('text, tokenizer and end-of-text give the reference files', () => {
  const tokenizer = loadTokenizer(join(golden, 'bloom-tiny'));
  const prefix = join(folder, 'from-text');
  const texts = [...readJsonLines(join(golden, 'megatron-data/docs.jsonl'))].map(({ text }) => text);
  const stats = writeTokenFiles(prefix, texts, tokenizer);
  expect(stats).toEqual({
    documents: 8,
    tokens: 593,
    textBytes: texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0),
  });
  for (const end of ['bin', 'idx']) {
    expect(sha256(`${prefix}.${end}`)).toBe(reference.files[`u16_text_document.${end}`].sha256);
  }
});

describe('a malformed index', () => {
  const good = fs.readFileSync(join(golden, 'megatron-data/u16_text_document.idx'));
  const change = (edit: (bytes: Buffer) => void): Buffer => {
    const copy = Buffer.from(good);
    edit(copy);
    return copy;
  };
  const pointers = HEADER_BYTES + 4 * 8;
  const documents = pointers + 8 * 8;
  const cases: [title: string, bytes: Buffer, message: RegExp][] = [
    ['empty', Buffer.alloc(0), /at least 34 bytes in index, got 0/],
    ['other magic', change((b) => b.write('TNTIDX')), /magic MMIDIDX at offset 0/],
    ['version 2', change((b) => b.writeUInt8(2, 9)), /version 1 at offset 9, got 2|version 1 at offset 9/],
    ['float dtype', change((b) => b.writeUInt8(6, 17)), /integer dtype code .* at offset 17.*got 6/],
    ['unknown dtype', change((b) => b.writeUInt8(99, 17)), /got 99/],
    ['2^63 sequences', change((b) => b.writeBigUInt64LE(2n ** 63n, 18)), /sequences .* bytes in index, got 202/],
    ['2^64 - 1 documents', change((b) => b.writeBigUInt64LE(2n ** 64n - 1n, 26)), /document entries/],
    ['cut off', good.subarray(0, 200), /= 202 bytes in index, got 200/],
    ['trailing bytes', Buffer.concat([good, Buffer.alloc(8)]), /got 210/],
    ['negative size', change((b) => b.writeInt32LE(-1, HEADER_BYTES)), /size of 0 or more for sequence 0.*got -1/],
    [
      'size beyond the .bin',
      change((b) => b.writeInt32LE(2 ** 30, HEADER_BYTES + 4)),
      /sequence 1 within the 1186 bytes/,
    ],
    ['pointer beyond the .bin', change((b) => b.writeBigUInt64LE(1186n, pointers)), /sequence 0 within/],
    ['pointer of 2^64 - 1', change((b) => b.writeBigUInt64LE(2n ** 64n - 1n, pointers)), /sequence 0 within/],
    [
      'documents that do not begin at 0',
      change((b) => b.writeBigUInt64LE(1n, documents)),
      /document entries from 0 to 8/,
    ],
    ['documents that fall', change((b) => b.writeBigUInt64LE(9n, documents + 8)), /do not fall \(entry 2\)/],
    [
      'documents that end early',
      change((b) => b.writeBigUInt64LE(7n, documents + 64)),
      /from 0 to 8 in index, got 0 to 7/,
    ],
  ];
  test.each(cases)('is refused: %s', (_title, bytes, message) => {
    expect(() => parseIndex(bytes, 1186, 'index')).toThrow(message);
    expect(() => parseIndex(bytes, 1186, 'index')).toThrow(expect.objectContaining({ code: 'FORMAT' }));
  });

  test('20,000 damaged indices are refused cleanly or stay within their .bin', () => {
    const random = randomFrom(4711);
    const parse = (bytes: Uint8Array): TokenIndex | undefined => {
      try {
        return parseIndex(bytes, 1186, 'index');
      } catch (error) {
        if (DsError.is(error) && error.code === 'FORMAT') return undefined;
        throw error;
      }
    };
    let accepted = 0;
    for (let round = 0; round < 20_000; round++) {
      const damaged = mutate(good, random);
      const index = parse(damaged);
      if (!index) continue;
      accepted++;
      for (const [s, size] of index.sizes.entries()) {
        expect(index.pointers[s]! + size * TOKEN_BYTES[index.dtype]).toBeLessThanOrEqual(1186);
      }
      expect(parse(damaged)).toEqual(index);
    }
    expect(accepted).toBeGreaterThan(300);
  });
});
