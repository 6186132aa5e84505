/** GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): attention and MLP side by side, a part of each head rotated. */
import { ConfigReader, type Json } from '../decoder/config-reader';
import type { DecoderDescription, DecoderLayer } from '../decoder/description';
import { readRotary } from '../decoder/rotary-config';
import { headByHeadLayer, layerNormLayer, linearLayer, whole } from '../decoder/stored-weight';
import type { ModelFamily } from '../families';
import { attentionSizes, refuseQuantized } from './sizes';

export const gptNeoX: ModelFamily = { modelType: 'gpt_neox', describe };

function describe(json: Json, source: string): DecoderDescription {
  const config = new ConfigReader(json, source);
  refuseQuantized(config);
  const vocabSize = config.count('vocab_size');
  const C = config.count('hidden_size');
  const eps = config.number('layer_norm_eps', 1e-5);
  const { rotary, context } = readRotary(config, { headSize: attentionSizes(config, C).headSize, share: 0.25 });
  const tied = config.flag('tie_word_embeddings', false);
  return {
    family: 'gpt_neox',
    vocabSize,
    hiddenSize: C,
    context,
    endTokenIds: config.ids('eos_token_id'),
    embedding: { table: whole('embed_in.weight', [vocabSize, C]), projectIn: undefined, norm: undefined },
    positions: { kind: 'rotary', ...rotary },
    layers: Array.from({ length: config.count('num_hidden_layers') }, (_, i) =>
      describeLayer(config, `layers.${i}.`, C, eps),
    ),
    finalNorm: layerNormLayer('final_layer_norm', C, eps),
    head: { projectOut: undefined, weight: tied ? undefined : whole('embed_out.weight', [vocabSize, C]) },
    prefix: 'gpt_neox.',
    ignored: [
      /^layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/,
      ...(tied ? [/^embed_out\.weight$/] : []),
    ],
  };
}

function describeLayer(config: ConfigReader, at: string, C: number, eps: number): DecoderLayer {
  const { heads, headSize } = attentionSizes(config, C);
  const F = config.count('intermediate_size');
  const bias = config.flag('attention_bias', true);
  return {
    arrangement: config.flag('use_parallel_residual', true) ? 'parallel' : 'pre_norm',
    attentionNorm: layerNormLayer(`${at}input_layernorm`, C, eps),
    attention: {
      heads,
      keyValueHeads: heads,
      headSize,
      scale: headSize ** -0.5,
      window: undefined,
      queryKeyValue: headByHeadLayer(`${at}attention.query_key_value`, heads, C, bias),
      headNorms: undefined,
      output: linearLayer(`${at}attention.dense`, [C, C], bias),
    },
    mlpNorm: layerNormLayer(`${at}post_attention_layernorm`, C, eps),
    mlp: {
      kind: 'plain',
      activation: config.activation('hidden_act', 'gelu'),
      up: linearLayer(`${at}mlp.dense_h_to_4h`, [F, C], true),
      down: linearLayer(`${at}mlp.dense_4h_to_h`, [C, F], true),
    },
  };
}
