/** BLOOM's configuration: Hugging Face's config.json, old and new key names, and the released sizes. */
import { DsError } from '@ds/core-native';
import { ConfigReader, type Json } from '../decoder/config-reader';

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

/** Reads Hugging Face's config.json of a BLOOM. @throws FORMAT, UNSUPPORTED */
export function bloomConfigFromJson(json: Json, source = 'config.json'): BloomConfig {
  if (json.model_type !== undefined && json.model_type !== 'bloom')
    throw new DsError({
      code: 'UNSUPPORTED',
      op: source,
      expected: 'model_type "bloom"',
      actual: JSON.stringify(json.model_type),
      hint: 'BLOOM is the one family that can be trained; `ds generate` and `ds logits` run the others',
    });
  if (json.tie_word_embeddings === false)
    throw new DsError({
      code: 'UNSUPPORTED',
      op: source,
      expected: 'tie_word_embeddings true',
      actual: 'false',
      hint: 'every released BLOOM shares the embedding with the head; one with a head of its own is not built',
    });
  const reader = new ConfigReader(json, source);
  const config: BloomConfig = {
    vocabSize: reader.number(['vocab_size']),
    hiddenSize: reader.number(['hidden_size', 'n_embed']),
    layers: reader.number(['n_layer', 'num_hidden_layers']),
    heads: reader.number(['n_head', 'num_attention_heads']),
    layerNormEpsilon: reader.number(['layer_norm_epsilon'], bloomDefaults.layerNormEpsilon),
    initializerRange: reader.number(['initializer_range'], bloomDefaults.initializerRange),
    residualAfterNorm: json.apply_residual_connection_post_layernorm === true,
    hiddenDropout: reader.number(['hidden_dropout'], 0),
    attentionDropout: reader.number(['attention_dropout'], 0),
    bosTokenId: reader.number(['bos_token_id'], bloomDefaults.bosTokenId),
    eosTokenId: reader.number(['eos_token_id'], bloomDefaults.eosTokenId),
    padTokenId: reader.number(['pad_token_id'], bloomDefaults.padTokenId),
    sequenceLength: reader.number(['seq_length'], 0) || undefined,
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
