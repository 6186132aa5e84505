import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFile } from './reader';
import type { TensorData } from './tensor-source';
import { SafetensorsWriter, writeSafetensors } from './writer';
import { WrittenRanges } from './written-ranges';

const golden = join(__dirname, '../../../../test/golden');
let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  fs.rmSync(folder, { recursive: true });
});

const f32 = (name: string, ...shape: number[]) => ({ name, dtype: 'f32', shape }) as const;

test.each([
  'safetensors/every-dtype',
  'safetensors/names',
  'safetensors/empty',
  'bloom-tiny/model',
  'bloom-tiny/golden',
  'bloom-tiny/trained-5-steps',
  'bloom-tiny-h6/model',
  'bloom-tiny/sharded/model_00001-of-00002',
])('rewrites %s byte for byte as the reference implementation wrote it', (name) => {
  const original = join(golden, `${name}.safetensors`);
  using file = SafetensorsFile.open(original);
  const tensors = new Map<string, TensorData>(file.names.toReversed().map((key) => [key, file.tensor(key)]));
  const copy = join(folder, 'copy.safetensors');
  writeSafetensors(copy, tensors, { metadata: Object.fromEntries(file.metadata) });
  expect(Buffer.compare(fs.readFileSync(copy), fs.readFileSync(original))).toBe(0);
});

test('takes tensors in any order and in uneven pieces', () => {
  const path = join(folder, 'pieces.safetensors');
  const content = Uint8Array.from({ length: 28 }, (_, i) => i * 9);
  using writer = SafetensorsWriter.create(path, [f32('a', 7), f32('b', 2)]);
  writer.write('b', content.subarray(0, 8));
  for (const [begin, end] of [
    [13, 20],
    [0, 5],
    [20, 28],
    [5, 13],
  ] as const)
    writer.write('a', content.subarray(begin, end), begin);
  expect(fs.existsSync(path)).toBe(false);
  writer.finish();
  using file = SafetensorsFile.open(path);
  expect([...file.tensor('a').bytes]).toEqual([...content]);
  expect([...file.tensor('b').bytes]).toEqual([...content.subarray(0, 8)]);
  expect(fs.readdirSync(folder)).toEqual(['pieces.safetensors']);
});

test('refuses what is not complete, overlaps, leaves a tensor or was not announced', () => {
  const path = join(folder, 'x.safetensors');
  using writer = SafetensorsWriter.create(path, [f32('weight', 4)]);
  writer.write('weight', new Uint8Array(8), 4);
  expect(() => writer.write('weight', new Uint8Array(5))).toThrow(
    /each byte of tensor weight once, got bytes 0 to 5 partly again/,
  );
  expect(() => writer.write('weight', new Uint8Array(5), 12)).toThrow(/within the 16 of tensor weight, got 12 to 17/);
  expect(() => writer.write('weights', new Uint8Array(1))).toThrow(/got "weights". Did you mean "weight"\?/);
  expect(() => writer.finish()).toThrow(/16 bytes for tensor weight, got 8/);
  expect(fs.readdirSync(folder)).toEqual([]);
  expect(() => writer.write('weight', new Uint8Array(4))).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
});

test('refuses tensors that the format cannot hold, before a file appears', () => {
  const create = (...specs: Parameters<typeof SafetensorsWriter.create>[1]) =>
    SafetensorsWriter.create(join(folder, 'x'), specs);
  expect(() => create(f32('x', 1), f32('x', 2))).toThrow(/each tensor once, got "x" twice/);
  expect(() => create(f32('', 1))).toThrow(/an empty name/);
  expect(() => create(f32('\ud800', 1))).toThrow(/unpaired surrogate/);
  expect(() => create(f32('__metadata__', 1))).toThrow(/reserved name/);
  expect(() => create({ name: 'x', dtype: 'F32' as 'f32', shape: [1] })).toThrow(
    expect.objectContaining({ code: 'DTYPE' }),
  );
  expect(() => create(f32('x', -1))).toThrow(expect.objectContaining({ code: 'SHAPE' }));
  expect(() => create(f32('x', 1, 1, 1, 1, 1, 1, 1, 1, 1))).toThrow(/at most 8 sizes/);
  expect(() => create({ name: 'x', dtype: 'f4', shape: [3] })).toThrow(/whole number of bytes/);
  expect(fs.readdirSync(folder)).toEqual([]);
});

test('says at once when the disk has not the space', () => {
  jest.spyOn(fs, 'statfsSync').mockReturnValue({ bavail: 3, bsize: 4096 } as fs.StatsFs);
  expect(() => SafetensorsWriter.create(join(folder, 'x'), [f32('x', 4096)])).toThrow(
    /16\d\d\d free bytes in .* for x, got 12288. Free space on that disk/,
  );
  expect(fs.readdirSync(folder)).toEqual([]);
});

describe('when the Nth file operation fails', () => {
  const operations = ['openSync', 'writeSync', 'fsyncSync', 'closeSync', 'renameSync', 'statfsSync'] as const;
  test.each(operations)('%s: the old file stays whole and nothing half-written is left', (operation) => {
    const path = join(folder, 'model.safetensors');
    const write = (fill: number): void =>
      writeSafetensors(path, new Map([['x', { dtype: 'u8', shape: [64], bytes: new Uint8Array(64).fill(fill) }]]));
    write(1);
    const original = fs[operation] as (...args: unknown[]) => unknown;
    for (let failing = 1; ; failing++) {
      let calls = 0;
      const spy = jest.spyOn(fs, operation as 'closeSync').mockImplementation(((...args: unknown[]) => {
        if (++calls === failing)
          throw Object.assign(new Error(`ENOSPC: no space left on device, ${operation}`), { code: 'ENOSPC' });
        return original.apply(fs, args);
      }) as typeof fs.closeSync);
      let failure: unknown;
      try {
        write(2);
      } catch (error) {
        failure = error;
      }
      spy.mockRestore();
      if (calls < failing) {
        expect(failure).toBeUndefined();
        expect(failing).toBeGreaterThan(1);
        return;
      }
      expect(failure).toMatchObject({ code: 'IO', message: expect.stringContaining('Free space on that disk') });
      expect(fs.readdirSync(folder)).toEqual(['model.safetensors']);
      // A failure after the rename leaves the new content, any other the old; never a mixture.
      using file = SafetensorsFile.open(path);
      const bytes = file.tensor('x').bytes;
      expect([1, 2]).toContain(bytes[0]);
      expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
      write(1);
    }
  });
});

test('WrittenRanges agrees with a bitmap over random pieces', () => {
  for (let seed = 0; seed < 300; seed++) {
    const ranges = new WrittenRanges();
    const bitmap = new Uint8Array(40);
    for (let step = 0; step < 40; step++) {
      const begin = (seed * 31 + step * 17 + ((step * step) % 7)) % 40;
      const end = Math.min(40, begin + ((seed + step * 5) % 6));
      const free = bitmap.subarray(begin, end).every((bit) => bit === 0);
      expect(ranges.add(begin, end)).toBe(free);
      if (free) bitmap.fill(1, begin, end);
      expect(ranges.total).toBe(bitmap.reduce((a, b) => a + b, 0));
    }
  }
});
