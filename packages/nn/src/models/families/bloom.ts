/** BLOOM (Le Scao et al. 2022) for inference; the model that trains is `models/bloom`. */
import { bloomConfigFromJson } from '../bloom/config';
import { Bloom } from '../bloom/model';
import { bloomPrefix, tiedHead } from '../bloom/names';
import { ConfigReader, type Json } from '../decoder/config-reader';
import type { DecoderDescription } from '../decoder/description';
import { headByHeadLayer, layerNormLayer, linearLayer, whole } from '../decoder/stored-weight';
import type { ModelFamily } from '../families';
import { refuseQuantized } from './sizes';

export const bloom: ModelFamily = {
  modelType: 'bloom',
  describe,
  create: (json, source) => new Bloom(bloomConfigFromJson(json, source)),
};

function describe(json: Json, source: string): DecoderDescription {
  refuseQuantized(new ConfigReader(json, source));
  const config = bloomConfigFromJson(json, source);
  const { vocabSize, hiddenSize: C, heads, layerNormEpsilon: eps } = config;
  const headSize = C / heads;
  return {
    family: 'bloom',
    vocabSize,
    hiddenSize: C,
    context: undefined,
    endTokenIds: [config.eosTokenId],
    embedding: {
      table: whole('word_embeddings.weight', [vocabSize, C]),
      projectIn: undefined,
      norm: layerNormLayer('word_embeddings_layernorm', C, eps),
    },
    positions: { kind: 'alibi' },
    layers: Array.from({ length: config.layers }, (_, i) => {
      const at = `h.${i}.`;
      return {
        arrangement: config.residualAfterNorm ? 'pre_norm_residual' : 'pre_norm',
        attentionNorm: layerNormLayer(`${at}input_layernorm`, C, eps),
        attention: {
          heads,
          keyValueHeads: heads,
          headSize,
          scale: headSize ** -0.5,
          window: undefined,
          queryKeyValue: headByHeadLayer(`${at}self_attention.query_key_value`, heads, C, true),
          headNorms: undefined,
          output: linearLayer(`${at}self_attention.dense`, [C, C], true),
        },
        mlpNorm: layerNormLayer(`${at}post_attention_layernorm`, C, eps),
        mlp: {
          kind: 'plain',
          activation: 'gelu',
          up: linearLayer(`${at}mlp.dense_h_to_4h`, [4 * C, C], true),
          down: linearLayer(`${at}mlp.dense_4h_to_h`, [C, 4 * C], true),
        },
      };
    }),
    finalNorm: layerNormLayer('ln_f', C, eps),
    head: { projectOut: undefined, weight: undefined },
    prefix: bloomPrefix,
    ignored: [tiedHead],
  };
}
