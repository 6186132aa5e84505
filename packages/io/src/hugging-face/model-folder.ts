/**
 * A model in the layout of the Hugging Face hub: `config.json`, weights in one safetensors file or in shards with an
 * index, `generation_config.json` and `tokenizer.json` where there are any. Knows files, not models.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import { readBoundedFile } from '../files/bounded-file';
import { isJsonObject, type JsonObject, parseJson } from '../json/strict-json';
import { LIMITS } from '../limits';
import { type OpenSafetensorsOptions, SafetensorsFile } from '../safetensors/reader';
import type { TensorSource } from '../safetensors/tensor-source';
import { findInside } from './inside-folder';
import { readShardIndex } from './shard-index';
import { ShardedTensors } from './sharded-tensors';

export const CONFIG_FILE = 'config.json';
export const GENERATION_CONFIG_FILE = 'generation_config.json';
export const WEIGHTS_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';
/** Files that make up a tokenizer, in the order in which they are looked for; only the first is needed. */
export const TOKENIZER_FILES = Object.freeze(['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json']);

const OP = 'openModelFolder';

/** An open model folder. */
export interface ModelFolder extends Disposable {
  readonly folder: string;
  readonly config: JsonObject;
  /** Undefined where the folder has no `generation_config.json`. */
  readonly generationConfig: JsonObject | undefined;
  readonly weights: TensorSource;
  /** Says whether `loadTokenizer(folder)` will find a `tokenizer.json`. */
  readonly hasTokenizer: boolean;
  close(): void;
}

/**
 * Reads a JSON object from a file of the folder, at most 4 MB.
 *
 * @returns undefined if the folder has no such file
 * @throws DsError IO, FORMAT
 */
export function readJsonOf(op: string, folder: string, name: string): JsonObject | undefined {
  const path = findInside(op, folder, name);
  if (path === undefined) return undefined;
  const value = parseJson(op, readBoundedFile(op, path, LIMITS.configJsonBytes), { source: path });
  if (isJsonObject(value)) return value;
  const hint = 'The file is damaged; fetch or write it again.';
  throw new DsError({ code: 'FORMAT', op, expected: `a JSON object in ${path}`, actual: 'another JSON value', hint });
}

/**
 * Opens the weights of a folder, or a single safetensors file.
 *
 * `model.safetensors` comes first; without it the index says which shards there are.
 * @throws DsError IO, FORMAT; UNSUPPORTED where there are only pickled weights, which could run code
 */
export function openWeights(path: string, options: OpenSafetensorsOptions = {}): TensorSource {
  if (path.endsWith('.safetensors') && !isFolder(path)) return SafetensorsFile.open(path, options);
  const single = findInside(OP, path, WEIGHTS_FILE);
  if (single !== undefined) return SafetensorsFile.open(single, options);
  const index = findInside(OP, path, INDEX_FILE);
  if (index !== undefined) return ShardedTensors.open(path, readShardIndex(index), options);
  const pickled = isFolder(path)
    ? fs.readdirSync(path).find((name) => /^pytorch_model.*\.bin(\.index\.json)?$/.test(name))
    : undefined;
  if (pickled !== undefined) {
    throw new DsError({
      code: 'UNSUPPORTED',
      op: OP,
      expected: `${WEIGHTS_FILE} or ${INDEX_FILE} in ${path}`,
      actual: `only ${pickled}`,
      hint: 'Pickled weights can run code when loaded and are never read; save the model as safetensors.',
    });
  }
  const hint = 'Name the folder of a model, or fetch its weights first.';
  const expected = `${WEIGHTS_FILE} or ${INDEX_FILE} in ${path}`;
  throw new DsError({ code: 'IO', op: OP, expected, actual: 'neither', hint });
}

function isFolder(path: string): boolean {
  return fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/**
 * Opens a model folder: reads its configuration and checks every header of its weights; reads no tensor.
 *
 * @throws DsError IO, FORMAT, UNSUPPORTED
 */
export function openModelFolder(folder: string, options: OpenSafetensorsOptions = {}): ModelFolder {
  const config = readJsonOf(OP, folder, CONFIG_FILE);
  if (!config) {
    const hint = 'Name the folder of a model: one with config.json and safetensors weights.';
    throw new DsError({ code: 'IO', op: OP, expected: join(folder, CONFIG_FILE), actual: 'no such file', hint });
  }
  const generationConfig = readJsonOf(OP, folder, GENERATION_CONFIG_FILE);
  const hasTokenizer = findInside(OP, folder, TOKENIZER_FILES[0]!) !== undefined;
  const weights = openWeights(folder, options);
  const close = (): void => weights.close();
  return { folder, config, generationConfig, weights, hasTokenizer, close, [Symbol.dispose]: close };
}

/** Reads the tokenizer's files, to put them unchanged into an exported folder. @throws DsError IO, FORMAT */
export function readTokenizerFiles(folder: string): Record<string, Uint8Array> {
  const files: Record<string, Uint8Array> = {};
  for (const name of TOKENIZER_FILES) {
    const path = findInside('readTokenizerFiles', folder, name);
    if (path !== undefined) files[name] = readBoundedFile('readTokenizerFiles', path, LIMITS.tokenizerJsonBytes);
  }
  return files;
}
