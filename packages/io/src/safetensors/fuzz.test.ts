import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import fc from 'fast-check';
import { mutate, randomFrom } from '../../test-support/mutate';
import { FILE_DTYPES } from './dtype';
import { LENGTH_BYTES, parseHeader, parseHeaderLength, type SafetensorsHeader } from './header';
import { SafetensorsFile } from './reader';
import type { TensorData } from './tensor-source';
import { layOut, writeSafetensors } from './writer';

const golden = join(__dirname, '../../../../test/golden');
const folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Parses a file image; undefined if it is refused with a FORMAT error, and any other outcome fails the test. */
function parse(image: Uint8Array): SafetensorsHeader | undefined {
  const context = { op: 'fuzz', path: 'image', fileBytes: image.byteLength };
  if (image.byteLength < LENGTH_BYTES) return undefined;
  try {
    const length = parseHeaderLength(image.subarray(0, LENGTH_BYTES), context, 1 << 20);
    return parseHeader(image.subarray(LENGTH_BYTES, LENGTH_BYTES + length), context);
  } catch (error) {
    if (DsError.is(error) && error.code === 'FORMAT') return undefined;
    throw error;
  }
}

/** Every byte of the file belongs to the header or to exactly one tensor of the right size. */
function expectSound(header: SafetensorsHeader, fileBytes: number): void {
  let position = fileBytes;
  for (const info of [...header.tensors.values()].reverse()) {
    expect(info.byteOffset + info.byteLength).toBe(position);
    position = info.byteOffset;
  }
  expect(position).toBeGreaterThanOrEqual(LENGTH_BYTES + 2);
}

test('20,000 damaged headers are refused cleanly or describe the file exactly', () => {
  const seeds = ['safetensors/every-dtype', 'safetensors/names', 'safetensors/empty', 'bloom-tiny-h6/model'].map(
    (name) => {
      const image = fs.readFileSync(join(golden, `${name}.safetensors`));
      const headerEnd = LENGTH_BYTES + image.readUInt32LE(0);
      return { image, headerEnd };
    },
  );
  const random = randomFrom(20240607);
  let accepted = 0;
  for (let round = 0; round < 20_000; round++) {
    const { image, headerEnd } = seeds[round % seeds.length]!;
    // Mostly damage the header, whose length is then often corrected so that the damage reaches the JSON.
    const header = mutate(image.subarray(round % 3 === 0 ? 0 : LENGTH_BYTES, headerEnd), random);
    const parts = round % 3 === 0 ? [header] : [lengthOf(header), header];
    const damaged = Buffer.concat([...parts, image.subarray(headerEnd, headerEnd + 65536)]);
    const parsed = parse(damaged);
    if (!parsed) continue;
    accepted++;
    expectSound(parsed, damaged.byteLength);
    expect(parse(damaged)).toEqual(parsed);
  }
  expect(accepted).toBeGreaterThan(50);
});

function lengthOf(header: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(LENGTH_BYTES);
  bytes.writeBigUInt64LE(BigInt(header.byteLength));
  return bytes;
}

test('any text as header is refused or understood', () => {
  const hostile = fc.oneof(fc.string({ unit: 'binary', maxLength: 200 }), fc.json({ maxDepth: 6 }));
  fc.assert(
    fc.property(hostile, (text) => {
      const json = Buffer.from(text);
      parse(Buffer.concat([lengthOf(json), json]));
    }),
    { numRuns: 3000, seed: 7 },
  );
});

test('what is written is read back identically, whatever the names, types and shapes', () => {
  const dtype = fc.constantFrom(...FILE_DTYPES.filter((name) => !/^f[46]/.test(name)));
  const name = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
    .filter((text) => !text.includes('\0') && text !== '__metadata__');
  const shape = fc.array(fc.nat(4), { maxLength: 8 }).filter((sizes) => sizes.reduce((a, b) => a * b, 1) < 300);
  const specs = fc.uniqueArray(fc.record({ name, dtype, shape }), { selector: (spec) => spec.name, maxLength: 8 });
  const metadata = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), {
    maxKeys: 3,
    noNullPrototype: true,
  });
  const path = join(folder, 'round-trip.safetensors');
  fc.assert(
    fc.property(specs, metadata, fc.nat(255), (list, texts, seed) => {
      const { tensors } = layOut(list, texts);
      const content = new Map<string, TensorData>(
        tensors.map(({ name: key, dtype: type, shape: sizes, byteLength, byteOffset }) => {
          const bytes = Uint8Array.from({ length: byteLength }, (_, i) => (byteOffset + i * 7 + seed) % 256);
          return [key, { dtype: type, shape: sizes, bytes }];
        }),
      );
      writeSafetensors(path, content, { metadata: texts });
      using file = SafetensorsFile.open(path);
      expect(new Map(file.metadata)).toEqual(new Map(Object.entries(texts)));
      expect([...file.names].sort()).toEqual([...content.keys()].sort());
      for (const [key, tensor] of content) expect(file.tensor(key)).toEqual(tensor);
    }),
    { numRuns: 150, seed: 11 },
  );
});
