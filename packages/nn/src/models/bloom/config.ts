/** BLOOM's configuration: Hugging Face's config.json, old and new key names, and the released sizes. */
import { DsError } from '@ds/core-native';

export interface BloomConfig {
  readonly vocabSize: number;
  /** C */
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly layerNormEpsilon: number;
  /** Standard deviation of the first weights. */
  readonly initializerRange: number;
  readonly residualAfterNorm: boolean;
  readonly hiddenDropout: number;
  readonly attentionDropout: number;
  readonly bosTokenId: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  /** Tokens a sequence was trained with, where the file says so. ALiBi sets no hard limit. */
  readonly sequenceLength: number | undefined;
}

type Json = Readonly<Record<string, unknown>>;

const bloomDefaults: BloomConfig = {
  vocabSize: 250880,
  hiddenSize: 64,
  layers: 2,
  heads: 8,
  layerNormEpsilon: 1e-5,
  initializerRange: 0.02,
  residualAfterNorm: false,
  hiddenDropout: 0,
  attentionDropout: 0,
  bosTokenId: 1,
  eosTokenId: 2,
  padTokenId: 3,
  sequenceLength: undefined,
};

function sized(hiddenSize: number, layers: number, heads: number, rest: Partial<BloomConfig> = {}): BloomConfig {
  return { ...bloomDefaults, hiddenSize, layers, heads, initializerRange: 0.0048, sequenceLength: 2048, ...rest };
}

/**
 * Models by name: the six released ones (their standard deviation is 0.0048 at every size), and small ones for tests,
 * benchmarks and the quickstart, with 0.02 as GPT-2 has.
 */
export const bloomPresets: Readonly<Record<string, BloomConfig>> = {
  bloom: sized(14336, 70, 112),
  'bloom-7b1': sized(4096, 30, 32),
  'bloom-3b': sized(2560, 30, 32),
  'bloom-1b7': sized(2048, 24, 16),
  'bloom-1b1': sized(1536, 24, 16),
  'bloom-560m': sized(1024, 24, 16),
  'bloom-125m': sized(768, 12, 12, { vocabSize: 50304, initializerRange: 0.02 }),
  'bloom-quickstart': sized(256, 4, 8, { vocabSize: 4096, initializerRange: 0.02, sequenceLength: 256 }),
  'bloom-tiny': sized(64, 2, 8, { vocabSize: 512, initializerRange: 0.02, sequenceLength: 64 }),
};

function pick(json: Json, names: readonly string[], source: string, fallback?: number): number {
  for (const name of names) {
    const value = json[name];
    if (value === undefined || value === null) continue;
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    throw new DsError({ code: 'FORMAT', op: source, expected: `a number for ${name}`, actual: JSON.stringify(value) });
  }
  if (fallback !== undefined) return fallback;
  throw new DsError({
    code: 'FORMAT',
    op: source,
    expected: `the key ${names.join(' or ')}`,
    actual: `only ${Object.keys(json).join(', ')}`,
    hint: 'config.json of a BLOOM model names its sizes; is this another kind of model?',
  });
}

/** Reads Hugging Face's config.json of a BLOOM. @throws FORMAT, UNSUPPORTED */
export function bloomConfigFromJson(json: Json, source = 'config.json'): BloomConfig {
  if (json.model_type !== undefined && json.model_type !== 'bloom')
    throw new DsError({
      code: 'UNSUPPORTED',
      op: source,
      expected: 'model_type "bloom"',
      actual: JSON.stringify(json.model_type),
      hint: 'BLOOM is the one model family so far',
    });
  if (json.tie_word_embeddings === false)
    throw new DsError({
      code: 'UNSUPPORTED',
      op: source,
      expected: 'tie_word_embeddings true',
      actual: 'false',
      hint: 'every released BLOOM shares the embedding with the head; one with a head of its own is not built',
    });
  const config: BloomConfig = {
    vocabSize: pick(json, ['vocab_size'], source),
    hiddenSize: pick(json, ['hidden_size', 'n_embed'], source),
    layers: pick(json, ['n_layer', 'num_hidden_layers'], source),
    heads: pick(json, ['n_head', 'num_attention_heads'], source),
    layerNormEpsilon: pick(json, ['layer_norm_epsilon'], source, bloomDefaults.layerNormEpsilon),
    initializerRange: pick(json, ['initializer_range'], source, bloomDefaults.initializerRange),
    residualAfterNorm: json.apply_residual_connection_post_layernorm === true,
    hiddenDropout: pick(json, ['hidden_dropout'], source, 0),
    attentionDropout: pick(json, ['attention_dropout'], source, 0),
    bosTokenId: pick(json, ['bos_token_id'], source, bloomDefaults.bosTokenId),
    eosTokenId: pick(json, ['eos_token_id'], source, bloomDefaults.eosTokenId),
    padTokenId: pick(json, ['pad_token_id'], source, bloomDefaults.padTokenId),
    sequenceLength: pick(json, ['seq_length'], source, 0) || undefined,
  };
  checkBloomConfig(config, source);
  return config;
}

/** Refuses sizes that cannot be. @throws FORMAT */
export function checkBloomConfig(config: BloomConfig, source: string): void {
  const refuse = (expected: string, actual: string): never => {
    throw new DsError({ code: 'FORMAT', op: source, expected, actual, hint: 'see the sizes of the released models' });
  };
  for (const key of ['vocabSize', 'hiddenSize', 'layers', 'heads'] as const)
    if (!Number.isInteger(config[key]) || config[key] < 1)
      refuse(`${key} to be a whole number >= 1`, String(config[key]));
  if (config.hiddenSize % config.heads !== 0)
    refuse('a hidden size that the heads divide', `${config.hiddenSize} and ${config.heads} heads`);
  for (const key of ['hiddenDropout', 'attentionDropout'] as const)
    if (!(config[key] >= 0 && config[key] < 1)) refuse(`${key} in [0, 1)`, String(config[key]));
}

/** Writes the config as Hugging Face's transformers reads it. */
export function bloomConfigToJson(config: BloomConfig, dtype: string): Record<string, unknown> {
  return {
    architectures: ['BloomForCausalLM'],
    model_type: 'bloom',
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    n_layer: config.layers,
    n_head: config.heads,
    layer_norm_epsilon: config.layerNormEpsilon,
    initializer_range: config.initializerRange,
    apply_residual_connection_post_layernorm: config.residualAfterNorm,
    hidden_dropout: config.hiddenDropout,
    attention_dropout: config.attentionDropout,
    bos_token_id: config.bosTokenId,
    eos_token_id: config.eosTokenId,
    pad_token_id: config.padTokenId,
    ...(config.sequenceLength ? { seq_length: config.sequenceLength } : {}),
    tie_word_embeddings: true,
    torch_dtype: dtype,
    use_cache: true,
  };
}

/** Parameters of a BLOOM: L (12 C^2 + 13 C) + V C + 4 C. */
export function bloomParameterCount({ layers: L, hiddenSize: C, vocabSize: V }: BloomConfig): number {
  return L * (12 * C * C + 13 * C) + V * C + 4 * C;
}
