/** `model.safetensors.index.json`: which shard holds which tensor. Files are named by the index only, never guessed. */
import { DsError } from '@ds/core-native';
import { readBoundedFile } from '../files/bounded-file';
import { isJsonObject, type JsonObject, ownValue, parseJson, shorten } from '../json/strict-json';
import { LIMITS } from '../limits';
import { nameProblem } from '../safetensors/header';
import { fileNameProblem } from './inside-folder';

/** An index, checked: no shard has been opened yet. */
export interface ShardIndex {
  /** Tensor name to shard file name. */
  readonly shardOf: ReadonlyMap<string, string>;
  /** Shard file names, sorted. */
  readonly shards: readonly string[];
  readonly metadata: JsonObject;
}

const OP = 'openShardIndex';

/**
 * Parses an index.
 *
 * `metadata.total_size` is not compared with the shards: released models exist whose number is wrong.
 * @throws DsError FORMAT naming file and tensor
 */
export function parseShardIndex(bytes: Uint8Array, path: string): ShardIndex {
  const fail = (expected: string, actual: string): DsError => {
    const hint = 'The index is damaged or was edited; fetch or write the model again.';
    return new DsError({ code: 'FORMAT', op: OP, expected: `${expected} in ${path}`, actual, hint });
  };
  const root = parseJson(OP, bytes, { source: path });
  if (!isJsonObject(root)) throw fail('a JSON object', 'another JSON value');
  const map = ownValue(root, 'weight_map');
  if (!isJsonObject(map)) throw fail('an object weight_map', shorten(JSON.stringify(map) ?? 'none'));
  const metadata = ownValue(root, 'metadata') ?? {};
  if (!isJsonObject(metadata)) throw fail('an object metadata', shorten(JSON.stringify(metadata)));
  const entries = Object.entries(map);
  if (entries.length === 0) throw fail('at least one tensor in weight_map', 'none');
  if (entries.length > LIMITS.tensors) throw fail(`at most ${LIMITS.tensors} tensors`, `${entries.length}`);
  const shardOf = new Map<string, string>();
  const byLowerCase = new Map<string, string>();
  for (const [name, shard] of entries) {
    const badName = nameProblem(name);
    if (badName) throw fail('tensor names of 1 to 512 bytes of Unicode text', `${badName}: ${shorten(name)}`);
    const badFile = typeof shard === 'string' ? fileNameProblem(shard) : 'not a string';
    if (typeof shard !== 'string' || badFile) {
      throw fail(`a file name for tensor ${shorten(name)}`, `${shorten(JSON.stringify(shard))}, ${badFile}`);
    }
    const lower = shard.toLowerCase();
    const twin = byLowerCase.get(lower) ?? shard;
    if (twin !== shard) {
      throw fail('shard names that differ in more than case', `${shorten(twin)} and ${shorten(shard)}`);
    }
    byLowerCase.set(lower, shard);
    shardOf.set(name, shard);
  }
  if (byLowerCase.size > LIMITS.shards) throw fail(`at most ${LIMITS.shards} shards`, `${byLowerCase.size}`);
  return { shardOf, shards: [...byLowerCase.values()].sort(), metadata };
}

/** Reads and parses an index file. @throws DsError IO, FORMAT */
export function readShardIndex(path: string): ShardIndex {
  return parseShardIndex(readBoundedFile(OP, path, LIMITS.shardIndexBytes), path);
}
