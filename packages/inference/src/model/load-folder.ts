/** Brings a Hugging Face model folder into memory, or says which file, key or tensor is wrong. */
import { join } from 'node:path';
import { type DeviceName, DsError, device as deviceOf } from '@ds/core-native';
import { type JsonObject, loadTokenizer, openModelFolder, type Tokenizer } from '@ds/io';
import { type CausalLM, type FullStorage, familyOf, holdFull } from '@ds/nn';
import { checkOptions, rules } from '../options';
import { type LoadProgress, loadWeights } from './load-weights';

export interface LoadOptions {
  /** `cpu` (default), or `ref`, the slow specification of every op. */
  device?: DeviceName;
  /**
   * What the weights are held as and computed with. Default `f32`, whatever the file holds: 16-bit values are exact in
   * it, and results do not depend on how a model was saved. `bf16` and `f16` take half the memory, and half the time per
   * token where reading the weights is what takes it, for logits that are off by about 1 %.
   */
  dtype?: 'f32' | 'bf16' | 'f16';
  /** Ends loading, with an ABORTED error. */
  signal?: AbortSignal;
  /** Hears of every piece that was read. */
  onProgress?: (progress: LoadProgress) => void;
}

export interface LoadedFolder {
  readonly folder: string;
  readonly model: CausalLM;
  readonly storage: FullStorage;
  readonly tokenizer: Tokenizer | undefined;
  readonly endTokenIds: readonly number[];
}

const OP = 'InferenceEngine.load';

/** @throws IO, FORMAT, DTYPE, UNSUPPORTED, CONFIG, DEVICE, OOM, ABORTED */
export async function loadFolder(folder: string, options: LoadOptions): Promise<LoadedFolder> {
  checkOptions<LoadOptions>(OP, options, {
    device: { expected: 'the name of a device', allows: (v) => typeof v === 'string' },
    dtype: rules.oneOf('f32', 'bf16', 'f16'),
    signal: rules.signal,
    onProgress: rules.callback,
  });
  const device = computingDevice(options.device ?? 'cpu');
  using opened = openModelFolder(folder);
  const source = join(folder, 'config.json');
  const family = familyOf(opened.config, source);
  const model = family.create(opened.config, source);
  const wanted = model.units.flatMap((unit) => unit.parameters.map(({ name }) => name));
  const names = family.matchNames(wanted, opened.weights.names, opened.weights.path);
  const tokenizer = opened.hasTokenizer ? loadTokenizer(folder) : undefined;
  if (tokenizer) checkTokenizer(tokenizer, model, folder);
  const endTokenIds = endTokensOf(opened.generationConfig, model, folder);
  const storage = holdFull(model, { device, dtype: options.dtype ?? 'f32' });
  try {
    await loadWeights(storage, names, opened.weights, options);
    return { folder, model, storage, tokenizer, endTokenIds };
  } catch (error) {
    storage[Symbol.dispose]();
    throw error;
  }
}

function computingDevice(name: DeviceName) {
  const device = deviceOf(name);
  if (device.name !== 'null') return device;
  const actual = 'null, which knows shapes and bytes only';
  throw new DsError({ code: 'DEVICE', op: OP, expected: 'a device that computes', actual, hint: 'use cpu' });
}

/** A model may have spare rows that no token has, never the other way round. */
function checkTokenizer(tokenizer: Tokenizer, model: CausalLM, folder: string): void {
  if (tokenizer.vocabSize <= model.shape.vocabSize) return;
  throw new DsError({
    code: 'FORMAT',
    op: OP,
    expected: `a tokenizer of at most ${model.shape.vocabSize} tokens (vocab_size) in ${folder}`,
    actual: `one with the id ${tokenizer.vocabSize - 1}`,
    hint: 'tokenizer.json belongs to another model',
  });
}

/** What generation_config.json says, an id or a list of them, or else config.json. */
function endTokensOf(config: JsonObject | undefined, model: CausalLM, folder: string): readonly number[] {
  const given = config?.eos_token_id;
  const ids = given === undefined || given === null ? [model.shape.eosTokenId] : [given].flat();
  if (ids.every((id) => typeof id === 'number' && Number.isInteger(id))) return ids as number[];
  throw new DsError({
    code: 'FORMAT',
    op: OP,
    expected: `an id or a list of ids for eos_token_id in ${join(folder, 'generation_config.json')}`,
    actual: JSON.stringify(given),
  });
}
