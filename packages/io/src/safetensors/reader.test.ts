import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import { LIMITS } from '../limits';
import { SafetensorsFile } from './reader';

const golden = join(__dirname, '../../../../test/golden');
const folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));

let files = 0;
/** Writes a file of 8 bytes of length, the header as given, and `dataBytes` counting bytes. */
function fileOf(header: string | Uint8Array, dataBytes = 0, length?: bigint): string {
  const json = Buffer.from(header);
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(length ?? BigInt(json.length));
  const path = join(folder, `${files++}.safetensors`);
  fs.writeFileSync(
    path,
    Buffer.concat([start, json, Buffer.from(Array.from({ length: dataBytes }, (_, i) => i % 256))]),
  );
  return path;
}

/** Opens the file, which must fail, and returns the error. */
function refusal(path: string, options?: { maxHeaderBytes: number }): DsError {
  try {
    SafetensorsFile.open(path, options).close();
  } catch (error) {
    if (!DsError.is(error)) throw error;
    return error;
  }
  throw new Error(`${fs.readFileSync(path).subarray(0, 200)} was accepted`);
}

const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown): string =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] });

describe('SafetensorsFile', () => {
  test('reads every dtype of the reference writer with names, shapes and bytes', () => {
    using file = SafetensorsFile.open(join(golden, 'safetensors/every-dtype.safetensors'));
    expect([...file.metadata]).toEqual([['format', 'pt']]);
    expect(file.names).toHaveLength(40);
    expect(file.names.slice(0, 3)).toEqual(['a.uint64', 'b.uint64', 'a.int64']);
    for (const name of file.names) {
      const { dtype, shape, bytes } = file.tensor(name);
      const elementBits = name.endsWith('64')
        ? 64
        : /32$/.test(name)
          ? 32
          : /16$/.test(name)
            ? 16
            : /x2$/.test(name)
              ? 4
              : 8;
      expect(shape).toEqual([2, 3, 2]);
      expect({ name, dtype, bytes: [...bytes] }).toEqual({
        name,
        dtype: expect.any(String),
        bytes: Array.from({ length: (12 * elementBits) / 8 }, (_, i) => i % 256),
      });
    }
    expect(file.info('a.bfloat16').dtype).toBe('bf16');
    expect(file.info('a.float8_e4m3fn').dtype).toBe('f8_e4m3');
    expect(file.info('a.float4_e2m1fn_x2').dtype).toBe('f4');
  });

  test('reads awkward names, scalars and empty tensors', () => {
    using file = SafetensorsFile.open(join(golden, 'safetensors/names.safetensors'));
    expect(file.metadata.get('note')).toBe('é \u2028 \x01 " \\ / \n');
    expect(file.info('scalar')).toMatchObject({ shape: [], elementCount: 1, byteLength: 4 });
    expect(file.tensor('empty')).toEqual({ dtype: 'f32', shape: [3, 0, 2], bytes: new Uint8Array(0) });
    expect([...file.tensor('__proto__').bytes]).toEqual([0, 1, 2, 3]);
    expect([...file.tensor('🦊').bytes]).toEqual([0, 1, 2, 3]);
    expect(file.has('toString')).toBe(false);
    using empty = SafetensorsFile.open(join(golden, 'safetensors/empty.safetensors'));
    expect(empty.names).toEqual([]);
  });

  test('reads a slice straight into memory at any place', () => {
    using file = SafetensorsFile.open(join(golden, 'bloom-tiny/model.safetensors'));
    const name = 'transformer.word_embeddings.weight';
    const whole = file.tensor(name).bytes;
    expect(file.info(name)).toMatchObject({ dtype: 'f32', shape: [512, 64], elementCount: 32768 });
    const target = new Uint8Array(10 + 7 * 4);
    file.readInto(name, target.subarray(5, 5 + 28), 12345, 7);
    expect([...target.subarray(5, 33)]).toEqual([...whole.subarray(12345 * 4, 12352 * 4)]);
    expect([...target.subarray(0, 5), ...target.subarray(33)]).toEqual(new Array(10).fill(0));
    const rest = new Uint8Array(8);
    file.readInto(name, rest, 32766);
    expect([...rest]).toEqual([...whole.subarray(-8)]);
    file.readInto(name, new Uint8Array(0), 32768, 0);
  });

  test('refuses slices outside the tensor, targets of another size and split bytes', () => {
    using file = SafetensorsFile.open(join(golden, 'safetensors/every-dtype.safetensors'));
    expect(() => file.readInto('a.int16', new Uint8Array(4), 11, 2)).toThrow(
      /within the 12 elements of tensor a.int16/,
    );
    expect(() => file.readInto('a.int16', new Uint8Array(4), -1, 2)).toThrow(/elementStart/);
    expect(() => file.readInto('a.int16', new Uint8Array(4), 0.5, 2)).toThrow(/elementStart/);
    expect(() => file.readInto('a.int16', new Uint8Array(3), 0, 2)).toThrow(
      /target of 4 bytes for 2 i16 elements.*got 3/,
    );
    expect(() => file.readInto('a.float4_e2m1fn_x2', new Uint8Array(1), 1, 2)).toThrow(/whole bytes of 4-bit/);
    const half = new Uint8Array(1);
    file.readInto('a.float4_e2m1fn_x2', half, 4, 2);
    expect([...half]).toEqual([2]);
  });

  test('names the nearest tensor when one is missing', () => {
    using file = SafetensorsFile.open(join(golden, 'bloom-tiny/model.safetensors'));
    expect(() => file.tensor('transformer.word_embedding.weight')).toThrow(
      /a tensor "transformer.word_embedding.weight" in .*Did you mean "transformer.word_embeddings.weight"\?/,
    );
  });

  test('refuses to read after close', () => {
    const file = SafetensorsFile.open(join(golden, 'safetensors/names.safetensors'));
    file.close();
    file.close();
    expect(() => file.tensor('scalar')).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
  });

  test('reports a file that shrinks while open instead of crashing', () => {
    const path = fileOf(`{"x":${entry('U8', [100], 0, 100)}}`, 100);
    using file = SafetensorsFile.open(path);
    fs.truncateSync(path, file.info('x').byteOffset + 40);
    expect(() => file.tensor('x')).toThrow(
      expect.objectContaining({ code: 'IO', message: expect.stringMatching(/end of the file after 40/) }),
    );
  });

  test('keeps reading the old content of a file that is replaced by name', () => {
    const path = fileOf(`{"x":${entry('U8', [4], 0, 4)}}`, 4);
    using file = SafetensorsFile.open(path);
    fs.writeFileSync(`${path}.new`, 'other');
    fs.renameSync(`${path}.new`, path);
    expect([...file.tensor('x').bytes]).toEqual([0, 1, 2, 3]);
  });
});

describe('a malformed safetensors file', () => {
  const x = (info: string): string => `{"x":${info}}`;
  const good = entry('U8', [4], 0, 4);
  const cases: [title: string, path: () => string, message: RegExp][] = [
    ['empty file', () => join(folder, 'nothing'), /at least 8 bytes in .*nothing, got 0/],
    [
      'header longer than the file',
      () => fileOf('{}', 0, 100n),
      /header length that fits the file.*got 100 in a file of 10 bytes/,
    ],
    ['header of 100 MB claimed by 8 bytes', () => fileOf('', 0, 25_000_000n), /got 25000000 in a file of 8 bytes/],
    ['header length of 2^64 - 1', () => fileOf('{}', 0, 2n ** 64n - 1n), /at most 25000000 bytes/],
    ['header of one byte', () => fileOf('{'), /at least 2 bytes/],
    ['header that begins with a space', () => fileOf(' {}'), /'\{' at offset 8.*got byte 32/],
    ['zero padding', () => fileOf('{}\0\0\0\0'), /padded with spaces.*zero byte at offset 10/],
    ['text after the object', () => fileOf('{}{}'), /JSON in the header/],
    ['not UTF-8', () => fileOf(Buffer.from('{"\xff":1}', 'latin1')), /UTF-8 text in the header/],
    ['cut JSON', () => fileOf('{"x":{"dtype"'), /JSON in the header/],
    ['a name twice', () => fileOf(`{"x":${good},"x":${good}}`, 4), /each key once.*got "x" twice/],
    ['a name twice, once escaped', () => fileOf(`{"x":${good},"\\u0078":${good}}`, 4), /got "x" twice/],
    [
      'a field twice',
      () => fileOf('{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,8],"data_offsets":[0,4]}}', 4),
      /"data_offsets" twice/,
    ],
    [
      'an unknown field',
      () => fileOf(x('{"dtype":"U8","shape":[4],"data_offsets":[0,4],"scale":2}'), 4),
      /only dtype, shape.*"scale"/,
    ],
    ['unknown dtype', () => fileOf(x(entry('F33', [1], 0, 4)), 4), /a dtype of BOOL.* for tensor "x".*got "\\"F33\\""/],
    ['lower-case dtype', () => fileOf(x(entry('f32', [1], 0, 4)), 4), /a dtype of/],
    ['missing dtype', () => fileOf(x('{"shape":[4],"data_offsets":[0,4]}'), 4), /a dtype of/],
    ['missing shape', () => fileOf(x('{"dtype":"U8","data_offsets":[0,4]}'), 4), /a shape of at most 8/],
    [
      'shape of 9 sizes',
      () => fileOf(x(entry('U8', [1, 1, 1, 1, 1, 1, 1, 1, 4], 0, 4)), 4),
      /at most 8 sizes.*got 9 dims/,
    ],
    ['negative size', () => fileOf(x(entry('U8', [-4], 0, 4)), 4), /whole numbers from 0/],
    [
      'fractional size',
      () => fileOf(x('{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}'), 4),
      /whole numbers.*"4.0"/,
    ],
    ['size as string', () => fileOf(x('{"dtype":"U8","shape":["4"],"data_offsets":[0,4]}'), 4), /a shape of at most 8/],
    [
      'product beyond 2^53',
      () => fileOf(x(entry('U8', [2 ** 50, 2 ** 50], 0, 4)), 4),
      /no whole number of bytes below 2\^53/,
    ],
    [
      'shape too large for the range',
      () => fileOf(x(entry('F32', [2], 0, 4)), 4),
      /\[2\] f32 \(8 bytes\) for tensor "x".*4 bytes/,
    ],
    ['half a byte', () => fileOf(x(entry('F4', [3], 0, 1)), 1), /no whole number of bytes/],
    ['offsets in reverse', () => fileOf(x(entry('U8', [0], 4, 0)), 4), /begin <= end/],
    [
      'three offsets',
      () => fileOf(x('{"dtype":"U8","shape":[4],"data_offsets":[0,4,8]}'), 4),
      /data_offsets \[begin, end\]/,
    ],
    [
      'overlap',
      () => fileOf(`{"x":${good},"y":${entry('U8', [4], 2, 6)}}`, 6),
      /tensor "y" to begin at 4.*got 2 \(it overlaps/,
    ],
    ['same range twice', () => fileOf(`{"x":${good},"y":${good}}`, 4), /overlaps/],
    [
      'hole',
      () => fileOf(`{"x":${good},"y":${entry('U8', [4], 5, 9)}}`, 9),
      /tensor "y" to begin at 4.*got 5 \(it leaves a hole/,
    ],
    ['hole before the first', () => fileOf(x(entry('U8', [4], 1, 5)), 5), /hole/],
    ['file cut off', () => fileOf(x(good), 3), /4 bytes of tensor data after offset \d+.*got 3 \(the file is cut off/],
    ['trailing bytes', () => fileOf(x(good), 5), /got 5 \(bytes follow/],
    ['metadata with a number', () => fileOf('{"__metadata__":{"step":3}}'), /a string as __metadata__\["step"\]/],
    ['metadata list', () => fileOf('{"__metadata__":[]}'), /an object of strings/],
    ['name of 513 bytes', () => fileOf(`{"${'é'.repeat(256)}x":${good}}`, 4), /a name of 513 bytes/],
    ['empty name', () => fileOf(`{"":${good}}`, 4), /an empty name/],
    ['surrogate name', () => fileOf(`{"\\ud800":${good}}`, 4), /unpaired surrogate/],
    ['zero in a name', () => fileOf(`{"a\\u0000":${good}}`, 4), /zero character/],
    ['deep nesting', () => fileOf(`{"x":${'['.repeat(50_000)}`), /at most 8 nested levels/],
    ['a list as header', () => fileOf('[1]'), /'\{' at offset 8/],
    ['a folder', () => folder, /a regular file at .*got a folder/],
  ];
  test.each(cases)('is refused: %s', (_title, path, message) => {
    fs.writeFileSync(join(folder, 'nothing'), '');
    const error = refusal(path());
    expect(error.message).toMatch(message);
    expect(error.code).toBe('FORMAT');
    expect(error.hint).not.toBe('');
    expect(error.message).toContain(folder);
  });

  test('is refused when it holds more tensors than the limit', () => {
    const many = Array.from(
      { length: LIMITS.tensors + 1 },
      (_, i) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`,
    );
    expect(refusal(fileOf(`{${many.join(',')}}`)).message).toMatch(/at most 100000 tensors in .*got 100001/);
  });

  test('is refused above maxHeaderBytes and accepted below it', () => {
    const path = fileOf(`{}${' '.repeat(98)}`);
    expect(refusal(path, { maxHeaderBytes: 99 }).message).toMatch(
      /at most 99 bytes.*got 100. If the file is sound, pass maxHeaderBytes/,
    );
    SafetensorsFile.open(path, { maxHeaderBytes: 100 }).close();
  });

  test('takes no memory for a header that the file cannot hold', () => {
    const path = fileOf('', 0, 24_999_999n);
    refusal(path);
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 100; i++) refusal(path);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 << 20);
  });

  test('is refused with code IO when missing', () => {
    expect(refusal(join(folder, 'absent'))).toMatchObject({
      code: 'IO',
      hint: 'Check the path; nothing exists there.',
    });
  });
});
