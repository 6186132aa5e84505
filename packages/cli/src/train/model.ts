/** Finds the model that a config or a command line names: a folder, a config.json, a preset, or sizes in place. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError } from '@ds/core-native';
import { openModelFolder } from '@ds/io';
import { Bloom, type BloomConfig, bloomConfigFromJson, bloomPresets } from '@ds/nn';

export interface ModelSource {
  /** For people. */
  readonly name: string;
  readonly config: BloomConfig;
  /** Folder with weights to start from; undefined draws them. */
  readonly weightsFolder: string | undefined;
  /** Folder with a tokenizer.json, if the model brought one. */
  readonly tokenizerFolder: string | undefined;
}

/** Finds a model. Reads its config, no weights. @throws CONFIG, FORMAT, IO, UNSUPPORTED */
export function findModel(model: string | Readonly<Record<string, unknown>>): ModelSource {
  if (typeof model !== 'string') return fromJson('bloom', model, 'model');
  const stat = fs.statSync(model, { throwIfNoEntry: false });
  if (stat?.isDirectory()) return fromFolder(model);
  if (stat) return fromFile(model);
  const preset = bloomPresets[model];
  if (!preset) throw unknownModel(model);
  return { name: model, config: preset, weightsFolder: undefined, tokenizerFolder: undefined };
}

/** Makes the model: a description that holds no memory. */
export function createModel({ config }: ModelSource): Bloom {
  return new Bloom(config);
}

function fromJson(name: string, json: Readonly<Record<string, unknown>>, source: string): ModelSource {
  const config = bloomConfigFromJson(json, source);
  return { name, config, weightsFolder: undefined, tokenizerFolder: undefined };
}

function fromFile(file: string): ModelSource {
  let json: unknown;
  try {
    json = JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (cause) {
    throw notConfig(file, cause instanceof Error ? cause.message : String(cause));
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw notConfig(file, 'another JSON value');
  return fromJson(path.basename(path.dirname(path.resolve(file))), json as Record<string, unknown>, file);
}

function fromFolder(folder: string): ModelSource {
  const source = fromFile(path.join(folder, 'config.json'));
  const has = (name: string) => fs.existsSync(path.join(folder, name));
  const tokenizerFolder = has('tokenizer.json') ? folder : undefined;
  if (!has('model.safetensors') && !has('model.safetensors.index.json')) return { ...source, tokenizerFolder };
  // Opened once here, so that a damaged header is told before any rank starts.
  openModelFolder(folder).close();
  return { ...source, weightsFolder: folder, tokenizerFolder };
}

function notConfig(file: string, actual: string): DsError {
  const hint = 'Name a model folder of Hugging Face, its config.json, or a preset such as "bloom-560m".';
  return new DsError({ code: 'FORMAT', op: file, expected: 'the config of a model, as a JSON object', actual, hint });
}

function unknownModel(model: string): DsError {
  return new DsError({
    code: 'CONFIG',
    op: 'model',
    expected: 'a folder, a config.json or a preset',
    actual: JSON.stringify(model),
    hint: `No such path. Presets: ${Object.keys(bloomPresets).join(', ')}.`,
  });
}
