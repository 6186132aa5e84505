/**
 * Writes a model folder in the Hugging Face layout, whole or not at all.
 *
 * Everything goes into a hidden folder beside the target, tensor by tensor, is flushed to the disk, and is then renamed:
 * nobody ever sees an index without its shards or new shards under an old index.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { DsError } from '@ds/core-native';
import { syncFolder, writeFileAtomically } from '../files/atomic-file';
import { ioError } from '../files/bounded-file';
import type { JsonObject, JsonValue } from '../json/strict-json';
import { isJsonObject, shorten } from '../json/strict-json';
import { byteLengthOf, elementCountOf } from '../safetensors/dtype';
import { nearestName } from '../safetensors/nearest-name';
import type { TensorSpec } from '../safetensors/tensor-source';
import { compareUtf8, SafetensorsWriter } from '../safetensors/writer';
import { fileNameProblem } from './inside-folder';
import { CONFIG_FILE, GENERATION_CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE } from './model-folder';

export interface ModelFolderContent {
  readonly config: JsonObject;
  readonly generationConfig?: JsonObject;
  /** All tensors to come, in the order in which they should fill shards. */
  readonly tensors: readonly TensorSpec[];
  /** More files by name, such as those of `readTokenizerFiles`. */
  readonly files?: Readonly<Record<string, Uint8Array | string>>;
  /** Largest shard; a bigger tensor gets a shard of its own. Default 5 GB, the hub's custom. */
  readonly maxShardBytes?: number;
  /** Strings for the safetensors headers. Default `{ format: 'pt' }`, without which transformers refuses the file. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Replace an older model folder at the same place. Default false. */
  readonly overwrite?: boolean;
}

const OP = 'writeModelFolder';
const DEFAULT_MAX_SHARD_BYTES = 5e9;
/** What may be deleted when a folder is replaced; anything else says that it is not merely an older model. */
const REPLACEABLE = /\.(safetensors|json|jinja|model|txt|md)$|^\.gitattributes$/;

/** Formats JSON as the Hugging Face libraries do: two spaces, keys sorted, a newline at the end. */
export function formatJson(value: JsonValue): string {
  return `${JSON.stringify(sortKeys(value), null, 2)}\n`;
}

function sortKeys(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort(compareUtf8)
      .map((key) => [key, sortKeys(value[key]!)]),
  );
}

/**
 * Divides tensors into shards: in order, a new shard where the next tensor would exceed `maxShardBytes`.
 *
 * @throws DsError SHAPE if a tensor's size cannot be counted, CONFIG for a limit that is no positive number
 */
export function planShards(tensors: readonly TensorSpec[], maxShardBytes: number): TensorSpec[][] {
  if (!(maxShardBytes > 0)) {
    const hint = 'Give the size in bytes, or leave it out for 5 GB.';
    throw new DsError({ code: 'CONFIG', op: OP, expected: 'maxShardBytes above 0', actual: `${maxShardBytes}`, hint });
  }
  const shards: TensorSpec[][] = [];
  let current: TensorSpec[] = [];
  let filled = 0;
  for (const tensor of tensors) {
    const elements = elementCountOf(tensor.shape);
    const bytes = elements === undefined ? undefined : byteLengthOf(tensor.dtype, elements);
    if (bytes === undefined) {
      const expected = `a shape and dtype of whole bytes below 2^53 for tensor ${shorten(tensor.name)}`;
      const actual = `[${tensor.shape.join(', ')}] ${tensor.dtype}`;
      throw new DsError({ code: 'SHAPE', op: OP, expected, actual, hint: 'Check the shape.' });
    }
    if (current.length > 0 && filled + bytes > maxShardBytes) {
      shards.push(current);
      current = [];
      filled = 0;
    }
    current.push(tensor);
    filled += bytes;
  }
  shards.push(current);
  return shards;
}

/** A model folder being written. Without `finish` it leaves nothing behind. */
export class ModelFolderWriter {
  readonly folder: string;
  readonly #temporary: string;
  readonly #overwrite: boolean;
  readonly #shardOf = new Map<string, SafetensorsWriter>();
  readonly #shards: SafetensorsWriter[] = [];
  #open = true;

  private constructor(folder: string, overwrite: boolean) {
    this.folder = resolve(folder);
    this.#overwrite = overwrite;
    const name = `.${basename(this.folder)}.${process.pid}-${randomBytes(6).toString('hex')}.tmp`;
    this.#temporary = join(dirname(this.folder), name);
  }

  /**
   * Starts a folder: checks what it can, writes the configuration, announces the tensors.
   *
   * The folder above must exist.
   * @throws DsError IO if the target exists or cannot be made; FORMAT, SHAPE or DTYPE for tensors that cannot be stored
   */
  static create(folder: string, content: ModelFolderContent): ModelFolderWriter {
    const writer = new ModelFolderWriter(folder, content.overwrite ?? false);
    writer.#requireReplaceable();
    const shards = planShards(content.tensors, content.maxShardBytes ?? DEFAULT_MAX_SHARD_BYTES);
    try {
      fs.mkdirSync(writer.#temporary);
    } catch (error) {
      throw ioError(OP, `to create ${writer.folder}`, error);
    }
    try {
      writer.#writeSmallFiles(content);
      writer.#announce(shards, content.metadata ?? { format: 'pt' });
      return writer;
    } catch (error) {
      writer.abort();
      throw error;
    }
  }

  /**
   * Writes a piece of a tensor.
   *
   * After a failure of the disk the folder is given up: nothing is left behind.
   * @param byteOffset of `bytes` within the tensor, default 0
   * @throws DsError as `SafetensorsWriter.write`
   */
  write(name: string, bytes: Uint8Array, byteOffset = 0): void {
    const shard = this.#shardOf.get(name);
    if (shard) {
      try {
        shard.write(name, bytes, byteOffset);
      } catch (error) {
        if (DsError.is(error) && error.code === 'IO') this.abort();
        throw error;
      }
      return;
    }
    throw new DsError({
      code: 'FORMAT',
      op: OP,
      expected: `a tensor announced to create() of ${this.folder}`,
      actual: shorten(name),
      hint: nearestName(name, [...this.#shardOf.keys()]),
    });
  }

  /** Checks that all is written, flushes it and gives the folder its name. @throws DsError FORMAT, IO */
  finish(): void {
    try {
      for (const shard of this.#shards) shard.finish();
      syncFolder(OP, this.#temporary);
      this.#putInPlace();
      this.#open = false;
      syncFolder(OP, dirname(this.folder));
    } catch (error) {
      this.abort();
      throw error instanceof DsError ? error : ioError(OP, `to finish ${this.folder}`, error);
    }
  }

  /** Gives up; nothing is left behind. Harmless after `finish`. */
  abort(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const shard of this.#shards) shard.abort();
    fs.rmSync(this.#temporary, { recursive: true, force: true });
  }

  [Symbol.dispose](): void {
    this.abort();
  }

  #writeSmallFiles(content: ModelFolderContent): void {
    const files = new Map<string, Uint8Array | string>();
    files.set(CONFIG_FILE, formatJson(content.config));
    if (content.generationConfig) files.set(GENERATION_CONFIG_FILE, formatJson(content.generationConfig));
    for (const [name, bytes] of Object.entries(content.files ?? {})) {
      const problem = files.has(name) || name.endsWith('.safetensors') ? 'written already' : fileNameProblem(name);
      if (problem) {
        const hint = 'Give extra files plain names that the model itself does not use.';
        throw new DsError({
          code: 'FORMAT',
          op: OP,
          expected: 'names of more files',
          actual: `${shorten(name)}, ${problem}`,
          hint,
        });
      }
      files.set(name, bytes);
    }
    for (const [name, bytes] of files) writeFileAtomically(OP, join(this.#temporary, name), bytes);
  }

  #announce(shards: readonly (readonly TensorSpec[])[], metadata: Readonly<Record<string, string>>): void {
    const of = String(shards.length).padStart(5, '0');
    const weightMap: Record<string, string> = {};
    let totalSize = 0;
    for (const [i, tensors] of shards.entries()) {
      const name = shards.length === 1 ? WEIGHTS_FILE : `model-${String(i + 1).padStart(5, '0')}-of-${of}.safetensors`;
      const shard = SafetensorsWriter.create(join(this.#temporary, name), tensors, { metadata });
      this.#shards.push(shard);
      for (const { name: tensor, dtype, shape } of tensors) {
        if (this.#shardOf.has(tensor)) {
          const hint = 'Give every tensor its own name.';
          throw new DsError({
            code: 'FORMAT',
            op: OP,
            expected: 'each tensor once',
            actual: `${shorten(tensor)} twice`,
            hint,
          });
        }
        this.#shardOf.set(tensor, shard);
        weightMap[tensor] = name;
        totalSize += byteLengthOf(dtype, elementCountOf(shape)!)!;
      }
    }
    if (shards.length === 1) return;
    const index = formatJson({ metadata: { total_size: totalSize }, weight_map: weightMap });
    writeFileAtomically(OP, join(this.#temporary, INDEX_FILE), index);
  }

  /** Refuses a target that exists, unless it is empty or an older model that may be replaced. */
  #requireReplaceable(): void {
    let entries: fs.Dirent[];
    try {
      entries = fs.readdirSync(this.folder, { withFileTypes: true });
    } catch (error) {
      if (!fs.existsSync(this.folder)) return;
      throw ioError(OP, `a folder at ${this.folder}`, error);
    }
    if (entries.length === 0) return;
    const foreign = entries.find((entry) => !entry.isFile() || !REPLACEABLE.test(entry.name));
    if (this.#overwrite && !foreign) return;
    throw new DsError({
      code: 'IO',
      op: OP,
      expected: this.#overwrite ? `nothing but an older model in ${this.folder}` : `no folder ${this.folder} yet`,
      actual: this.#overwrite ? `also ${shorten(foreign?.name ?? '')}` : `one with ${entries.length} entries`,
      hint: this.#overwrite
        ? 'Choose another folder.'
        : 'Choose another folder, or pass overwrite to replace the model.',
    });
  }

  #putInPlace(): void {
    if (!fs.existsSync(this.folder)) {
      fs.renameSync(this.#temporary, this.folder);
      return;
    }
    this.#requireReplaceable();
    const old = `${this.#temporary}.old`;
    fs.renameSync(this.folder, old);
    try {
      fs.renameSync(this.#temporary, this.folder);
    } catch (error) {
      fs.renameSync(old, this.folder);
      throw error;
    }
    fs.rmSync(old, { recursive: true, force: true });
  }
}
