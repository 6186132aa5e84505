/** GPT-2 (Radford et al. 2019): learned positions, layer norms, weights stored as [in, out]. */
import { ConfigReader, type Json } from '../decoder/config-reader';
import type { DecoderDescription, LinearLayer } from '../decoder/description';
import { layerNormLayer, transposed, whole } from '../decoder/stored-weight';
import type { ModelFamily } from '../families';
import { refuseQuantized } from './sizes';

export const gpt2: ModelFamily = { modelType: 'gpt2', describe };

function describe(json: Json, source: string): DecoderDescription {
  const config = new ConfigReader(json, source);
  refuseQuantized(config);
  if (config.flag('add_cross_attention', false))
    config.refuse('UNSUPPORTED', 'add_cross_attention false', 'true', 'decoders beside an encoder are not built');
  const vocabSize = config.count('vocab_size');
  const C = config.count(['n_embd', 'hidden_size']);
  const heads = config.count(['n_head', 'num_attention_heads']);
  const headSize = C / heads;
  if (!Number.isInteger(headSize)) config.refuse('FORMAT', 'n_embd that n_head divides', `${C} and ${heads} heads`);
  const layers = config.count(['n_layer', 'num_hidden_layers']);
  const positions = config.count(['n_positions', 'max_position_embeddings']);
  const F = config.optionalCount('n_inner') ?? 4 * C;
  const eps = config.number('layer_norm_epsilon', 1e-5);
  const activation = config.activation('activation_function', 'gelu_new');
  const scale = config.flag('scale_attn_weights', true) ? headSize ** -0.5 : 1;
  const byLayer = config.flag('scale_attn_by_inverse_layer_idx', false);
  const tied = config.flag('tie_word_embeddings', true);
  return {
    family: 'gpt2',
    vocabSize,
    hiddenSize: C,
    context: { tokens: positions, most: positions },
    endTokenIds: config.ids('eos_token_id'),
    embedding: { table: whole('wte.weight', [vocabSize, C]), projectIn: undefined, norm: undefined },
    positions: { kind: 'learned', table: whole('wpe.weight', [positions, C]), offset: 0 },
    layers: Array.from({ length: layers }, (_, i) => {
      const at = `h.${i}.`;
      return {
        arrangement: 'pre_norm',
        attentionNorm: layerNormLayer(`${at}ln_1`, C, eps),
        attention: {
          heads,
          keyValueHeads: heads,
          headSize,
          scale: byLayer ? scale / (i + 1) : scale,
          window: undefined,
          queryKeyValue: conv1d(`${at}attn.c_attn`, [3 * C, C]),
          headNorms: undefined,
          output: conv1d(`${at}attn.c_proj`, [C, C]),
        },
        mlpNorm: layerNormLayer(`${at}ln_2`, C, eps),
        mlp: {
          kind: 'plain',
          activation,
          up: conv1d(`${at}mlp.c_fc`, [F, C]),
          down: conv1d(`${at}mlp.c_proj`, [C, F]),
        },
      };
    }),
    finalNorm: layerNormLayer('ln_f', C, eps),
    head: { projectOut: undefined, weight: tied ? undefined : whole('lm_head.weight', [vocabSize, C]) },
    prefix: 'transformer.',
    // The released files hold the causal masks.
    ignored: [/^h\.\d+\.attn\.(bias|masked_bias)$/, ...(tied ? [/^lm_head\.weight$/] : [])],
  };
}

function conv1d(name: string, shape: readonly [number, number]): LinearLayer {
  return { weight: transposed(`${name}.weight`, shape), bias: whole(`${name}.bias`, [shape[0]]) };
}
