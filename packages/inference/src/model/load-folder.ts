/** Brings a Hugging Face model folder into memory, or says which file, key or tensor is wrong. */
import { join } from 'node:path';
import { type DeviceName, DsError, device as deviceOf, type PackedFormat } from '@ds/core-native';
import { type JsonObject, loadTokenizer, openModelFolder, type Tokenizer } from '@ds/io';
import { type DecoderDescription, familyOf, matchTensorNames, tensorsOf } from '@ds/nn';
import { DecoderModel } from '../decoder/decoder-model';
import { checkTensors, type LoadProgress } from '../decoder/load-weights';
import { checkOptions, rules } from '../options';

export interface LoadOptions {
  /** `cpu` (default), or `ref`, the slow specification of every op. */
  device?: DeviceName;
  /**
   * What keys and values of earlier tokens are held as, and weights where `weights` says nothing; on a GPU what is computed
   * with, too. Default `f32`, whatever the file holds: 16-bit values are exact in it, and results do not depend on how a model
   * was saved. `bf16` and `f16` take half the memory, and half the time per token where reading the weights is what takes it,
   * for logits that are off by about 1 %. The CPU computes in f32 from what is held.
   */
  dtype?: 'f32' | 'bf16' | 'f16';
  /**
   * What the weights are held as; default `dtype`. `q8` and `q4` round them to 8 and 4 bits in blocks of 32 with a scale (8.5 and
   * 4.5 bits a weight), and products round their inputs to 8 bits: for larger models, and shorter times per token.
   */
  weights?: PackedFormat;
  /**
   * Tokens of the longest text, prompt included. Default: what config.json says the model was made for. Where positions can be
   * stretched (dynamic, longrope), more than that changes all positions, for short texts, too.
   */
  contextTokens?: number;
  /** Ends loading, with an ABORTED error. */
  signal?: AbortSignal;
  /** Hears of every piece that was read. */
  onProgress?: (progress: LoadProgress) => void;
}

export interface LoadedFolder {
  readonly folder: string;
  readonly model: DecoderModel;
  readonly tokenizer: Tokenizer | undefined;
  readonly endTokenIds: readonly number[];
}

const OP = 'InferenceEngine.load';

/** @throws IO, FORMAT, DTYPE, UNSUPPORTED, CONFIG, DEVICE, OOM, ABORTED */
export async function loadFolder(folder: string, options: LoadOptions): Promise<LoadedFolder> {
  checkOptions<LoadOptions>(OP, options, {
    device: { expected: 'the name of a device', allows: (v) => typeof v === 'string' },
    dtype: rules.oneOf('f32', 'bf16', 'f16'),
    weights: rules.oneOf('f32', 'bf16', 'f16', 'q8', 'q4'),
    contextTokens: rules.wholeFrom(1),
    signal: rules.signal,
    onProgress: rules.callback,
  });
  const device = computingDevice(options.device ?? 'cpu');
  using opened = openModelFolder(folder);
  const source = join(folder, 'config.json');
  const description = familyOf(opened.config, source).describe(opened.config, source);
  const contextTokens = contextOf(description, options.contextTokens, source);
  const shapes = tensorsOf(description);
  const wanted = { ...description, names: [...shapes.keys()] };
  const names = matchTensorNames(wanted, opened.weights.names, opened.weights.path);
  checkTensors(shapes, opened.weights, names);
  const tokenizer = opened.hasTokenizer ? loadTokenizer(folder) : undefined;
  if (tokenizer) checkTokenizer(tokenizer, description, folder);
  const endTokenIds = endTokensOf(opened.generationConfig, description, folder);
  const { dtype = 'f32', weights = dtype } = options;
  const model = new DecoderModel(description, { device, dtype, weights, contextTokens });
  try {
    await model.weights.fill(opened.weights, names, options);
    return { folder, model, tokenizer, endTokenIds };
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
}

/** @throws CONFIG for more than positions allow */
function contextOf({ context }: DecoderDescription, wanted: number | undefined, source: string): number {
  if (!context) return wanted ?? Number.POSITIVE_INFINITY;
  if (wanted === undefined) return context.tokens;
  if (wanted <= context.most) return wanted;
  throw new DsError({
    code: 'CONFIG',
    op: OP,
    expected: `contextTokens of at most ${context.most}, as ${source} says`,
    actual: String(wanted),
  });
}

function computingDevice(name: DeviceName) {
  const device = deviceOf(name);
  if (device.name !== 'null') return device;
  const actual = 'null, which knows shapes and bytes only';
  throw new DsError({ code: 'DEVICE', op: OP, expected: 'a device that computes', actual, hint: 'use cpu' });
}

/** A model may have spare rows that no token has, never the other way round. */
function checkTokenizer(tokenizer: Tokenizer, { vocabSize }: DecoderDescription, folder: string): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new DsError({
    code: 'FORMAT',
    op: OP,
    expected: `a tokenizer of at most ${vocabSize} tokens (vocab_size) in ${folder}`,
    actual: `one with the id ${tokenizer.vocabSize - 1}`,
    hint: 'tokenizer.json belongs to another model',
  });
}

/** What generation_config.json says, an id or a list of them, or else config.json. */
function endTokensOf(
  config: JsonObject | undefined,
  { endTokenIds }: DecoderDescription,
  folder: string,
): readonly number[] {
  const given = config?.eos_token_id;
  const ids = given === undefined || given === null ? endTokenIds : [given].flat();
  if (ids.every((id) => typeof id === 'number' && Number.isInteger(id))) return ids as number[];
  throw new DsError({
    code: 'FORMAT',
    op: OP,
    expected: `an id or a list of ids for eos_token_id in ${join(folder, 'generation_config.json')}`,
    actual: JSON.stringify(given),
  });
}
