/** OPT (Zhang et al. 2022): learned positions with an offset; the 350M model has norms behind the residual sums and a narrower embedding. */
import { ConfigReader, type Json } from '../decoder/config-reader';
import type { DecoderDescription, DecoderLayer } from '../decoder/description';
import { layerNormLayer, linearLayer, whole } from '../decoder/stored-weight';
import type { ModelFamily } from '../families';
import { joined } from './rms-decoder';
import { attentionSizes, refuseQuantized } from './sizes';

/** The table's first rows belong to padding, as in fairseq. */
const positionOffset = 2;
/** PyTorch's default; the config does not say it. */
const eps = 1e-5;

export const opt: ModelFamily = { modelType: 'opt', describe };

function describe(json: Json, source: string): DecoderDescription {
  const config = new ConfigReader(json, source);
  refuseQuantized(config);
  if (!config.flag('layer_norm_elementwise_affine', true))
    config.refuse('UNSUPPORTED', 'layer_norm_elementwise_affine true', 'false', 'norms without weights are not built');
  const vocabSize = config.count('vocab_size');
  const C = config.count('hidden_size');
  const E = config.count('word_embed_proj_dim', C);
  const positions = config.count('max_position_embeddings');
  const before = config.flag('do_layer_norm_before', true);
  const tied = config.flag('tie_word_embeddings', true);
  const at = 'decoder.';
  return {
    family: 'opt',
    vocabSize,
    hiddenSize: C,
    context: { tokens: positions, most: positions },
    endTokenIds: config.ids('eos_token_id'),
    embedding: {
      table: whole(`${at}embed_tokens.weight`, [vocabSize, E]),
      projectIn: E === C ? undefined : linearLayer(`${at}project_in`, [C, E], false),
      norm: undefined,
    },
    positions: {
      kind: 'learned',
      table: whole(`${at}embed_positions.weight`, [positions + positionOffset, C]),
      offset: positionOffset,
    },
    layers: Array.from({ length: config.count('num_hidden_layers') }, (_, i) =>
      describeLayer(config, `${at}layers.${i}.`, C, before),
    ),
    finalNorm:
      before && !config.flag('_remove_final_layer_norm', false)
        ? layerNormLayer(`${at}final_layer_norm`, C, eps)
        : undefined,
    head: {
      projectOut: E === C ? undefined : linearLayer(`${at}project_out`, [E, C], false),
      weight: tied ? undefined : whole('lm_head.weight', [vocabSize, E]),
    },
    prefix: 'model.',
    ignored: tied ? [/^lm_head\.weight$/] : [],
  };
}

function describeLayer(config: ConfigReader, at: string, C: number, before: boolean): DecoderLayer {
  const { heads, headSize } = attentionSizes(config, C);
  const F = config.count('ffn_dim');
  const bias = config.flag('enable_bias', true);
  const projection = (name: string) => linearLayer(`${at}self_attn.${name}_proj`, [C, C], bias);
  return {
    arrangement: before ? 'pre_norm' : 'post_norm',
    attentionNorm: layerNormLayer(`${at}self_attn_layer_norm`, C, eps),
    attention: {
      heads,
      keyValueHeads: heads,
      headSize,
      scale: headSize ** -0.5,
      window: undefined,
      queryKeyValue: joined(projection('q'), projection('k'), projection('v')),
      headNorms: undefined,
      output: projection('out'),
    },
    mlpNorm: layerNormLayer(`${at}final_layer_norm`, C, eps),
    mlp: {
      kind: 'plain',
      activation: config.activation('activation_function', 'relu'),
      up: linearLayer(`${at}fc1`, [F, C], bias),
      down: linearLayer(`${at}fc2`, [C, F], bias),
    },
  };
}
