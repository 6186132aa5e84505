/** Many safetensors files presented as one: a tensor is read from the shard its index names. */
import { DsError } from '@ds/core-native';
import { nearestName } from '../safetensors/nearest-name';
import { type OpenSafetensorsOptions, SafetensorsFile } from '../safetensors/reader';
import type { TensorData, TensorInfo, TensorSource } from '../safetensors/tensor-source';
import { findInside } from './inside-folder';
import type { ShardIndex } from './shard-index';

const OP = 'openShards';

/** The open shards of a model. */
export class ShardedTensors implements TensorSource {
  readonly path: string;
  readonly names: readonly string[];
  readonly #fileOf = new Map<string, SafetensorsFile>();
  readonly #files: readonly SafetensorsFile[];

  private constructor(path: string, files: readonly SafetensorsFile[]) {
    this.path = path;
    this.#files = files;
    for (const file of files) for (const name of file.names) this.#fileOf.set(name, file);
    this.names = Object.freeze([...this.#fileOf.keys()]);
  }

  /**
   * Opens every shard of the index and checks that index and shards agree in both directions.
   *
   * All stay open, so that a shard replaced later cannot mix two versions of a model.
   * @throws DsError IO, FORMAT
   */
  static open(folder: string, index: ShardIndex, options: OpenSafetensorsOptions = {}): ShardedTensors {
    const files: SafetensorsFile[] = [];
    const announced = namesByShard(index);
    try {
      for (const shard of index.shards) {
        const path = findInside(OP, folder, shard);
        if (path === undefined) {
          const hint = 'The download or copy is not complete; fetch the missing file.';
          throw new DsError({
            code: 'IO',
            op: OP,
            expected: `the shard ${shard} in ${folder}`,
            actual: 'no such file',
            hint,
          });
        }
        const file = SafetensorsFile.open(path, options);
        files.push(file);
        checkAgainstIndex(file, shard, announced.get(shard) ?? [], index);
      }
      return new ShardedTensors(folder, files);
    } catch (error) {
      for (const file of files) file.close();
      throw error;
    }
  }

  has(name: string): boolean {
    return this.#fileOf.has(name);
  }

  info(name: string): TensorInfo {
    return this.#file(name).info(name);
  }

  tensor(name: string): TensorData {
    return this.#file(name).tensor(name);
  }

  readInto(name: string, target: Uint8Array, elementStart = 0, elementCount?: number): void {
    this.#file(name).readInto(name, target, elementStart, elementCount);
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file) return file;
    throw new DsError({
      code: 'FORMAT',
      op: 'readTensor',
      expected: `a tensor ${JSON.stringify(name)} in ${this.path}`,
      actual: `${this.names.length} tensors in ${this.#files.length} shards, none of that name`,
      hint: nearestName(name, this.names),
    });
  }
}

function namesByShard(index: ShardIndex): Map<string, string[]> {
  const names = new Map<string, string[]>(index.shards.map((shard) => [shard, []]));
  for (const [name, shard] of index.shardOf) names.get(shard)?.push(name);
  return names;
}

function checkAgainstIndex(
  file: SafetensorsFile,
  shard: string,
  announced: readonly string[],
  index: ShardIndex,
): void {
  const hint = 'Index and shards come from different versions of the model; fetch or write them together.';
  for (const name of announced) {
    if (!file.has(name)) {
      const expected = `tensor ${JSON.stringify(name)} in ${file.path}, where the index puts it`;
      throw new DsError({ code: 'FORMAT', op: OP, expected, actual: 'no tensor of that name', hint });
    }
  }
  for (const name of file.names) {
    if (index.shardOf.get(name) !== shard) {
      const actual = `tensor ${JSON.stringify(name)}, which the index puts in ${index.shardOf.get(name) ?? 'no shard'}`;
      throw new DsError({ code: 'FORMAT', op: OP, expected: `only tensors of ${shard} in ${file.path}`, actual, hint });
    }
  }
}
