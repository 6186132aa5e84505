import fs from 'node:fs';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import fc from 'fast-check';
import { mutate, randomFrom } from '../../test-support/mutate';
import { fileNameProblem } from './inside-folder';
import { parseShardIndex, type ShardIndex } from './shard-index';

const golden = join(__dirname, '../../../../test/golden/bloom-tiny/sharded/model.safetensors.index.json');

/** Parses an index; undefined if it is refused with a FORMAT error, and any other outcome fails the test. */
function parse(bytes: Uint8Array): ShardIndex | undefined {
  try {
    return parseShardIndex(bytes, 'index');
  } catch (error) {
    if (DsError.is(error) && error.code === 'FORMAT') return undefined;
    throw error;
  }
}

function expectSound({ shardOf, shards }: ShardIndex): void {
  expect([...new Set(shardOf.values())].sort()).toEqual(shards);
  for (const shard of shards) expect(fileNameProblem(shard)).toBeUndefined();
}

test('20,000 damaged indices are refused cleanly or name plain files only', () => {
  const seed = Buffer.from(JSON.stringify(JSON.parse(fs.readFileSync(golden, 'utf8'))));
  const random = randomFrom(99);
  let accepted = 0;
  for (let round = 0; round < 20_000; round++) {
    const damaged = mutate(seed, random);
    const index = parse(damaged);
    if (!index) continue;
    accepted++;
    expectSound(index);
    expect(parse(damaged)).toEqual(index);
  }
  expect(accepted).toBeGreaterThan(500);
});

test('any JSON as index is refused or understood', () => {
  const fileName = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('..', '/', 'a/b', 'con', 'a.safetensors', 'A.safetensors'),
  );
  const index = fc.record({ weight_map: fc.dictionary(fc.string(), fc.oneof(fileName, fc.jsonValue())) });
  fc.assert(
    fc.property(fc.oneof(index, fc.jsonValue({ maxDepth: 5 })), (value) => {
      const parsed = parse(Buffer.from(JSON.stringify(value)));
      if (parsed) expectSound(parsed);
    }),
    { numRuns: 3000, seed: 3 },
  );
});
