/**
 * The decoder that Llama and its kin share: RMS norms in front of attention and a gated MLP, rotary positions, key-value heads
 * that several query heads share. They differ in biases, norms of heads, windows, and in how a file cuts the projections.
 */
import { ConfigReader, type Json } from '../decoder/config-reader';
import type { DecoderDescription, DecoderLayer, LinearLayer } from '../decoder/description';
import { readRotary } from '../decoder/rotary-config';
import { linearLayer, rmsNormLayer, stacked, whole } from '../decoder/stored-weight';
import { attentionSizes, refuseQuantized } from './sizes';

export interface RmsDecoderSwitches {
  readonly biases: { readonly queryKeyValue: boolean; readonly output: boolean; readonly mlp: boolean };
  /** RMS norms of each head's query and key. */
  readonly headNorms: boolean;
  /** Whether the file holds queries, keys and values as one tensor, and gate and up as one. */
  readonly fused: boolean;
  /** What a token of each layer sees, as `AttentionLayer` says. */
  readonly windows: readonly (number | undefined)[];
}

/** Describes a model by its config.json and the switches of its family. @throws FORMAT, UNSUPPORTED */
export function describeRmsDecoder(
  family: string,
  json: Json,
  source: string,
  switchesOf: (config: ConfigReader, layers: number) => RmsDecoderSwitches,
): DecoderDescription {
  const config = new ConfigReader(json, source);
  refuseQuantized(config);
  const layers = config.count('num_hidden_layers');
  const switches = switchesOf(config, layers);
  const vocabSize = config.count('vocab_size');
  const hiddenSize = config.count('hidden_size');
  const eps = config.number('rms_norm_eps', 1e-6);
  const { rotary, context } = readRotary(config, { headSize: attentionSizes(config, hiddenSize).headSize });
  const tied = config.flag('tie_word_embeddings', false);
  return {
    family,
    vocabSize,
    hiddenSize,
    context,
    endTokenIds: config.ids('eos_token_id'),
    embedding: {
      table: whole('embed_tokens.weight', [vocabSize, hiddenSize]),
      projectIn: undefined,
      norm: undefined,
    },
    positions: { kind: 'rotary', ...rotary },
    layers: switches.windows.map((window, i) =>
      describeLayer(config, { at: `layers.${i}.`, hiddenSize, eps, window }, switches),
    ),
    finalNorm: rmsNormLayer('norm', hiddenSize, eps),
    head: { projectOut: undefined, weight: tied ? undefined : whole('lm_head.weight', [vocabSize, hiddenSize]) },
    prefix: 'model.',
    ignored: [/rotary_emb\.inv_freq$/, ...(tied ? [/^lm_head\.weight$/] : [])],
  };
}

interface LayerPlace {
  readonly at: string;
  readonly hiddenSize: number;
  readonly eps: number;
  readonly window: number | undefined;
}

function describeLayer(
  config: ConfigReader,
  { at, hiddenSize: C, eps, window }: LayerPlace,
  { biases, headNorms, fused }: RmsDecoderSwitches,
): DecoderLayer {
  const { heads, keyValueHeads, headSize } = attentionSizes(config, C);
  const F = config.count('intermediate_size');
  const attention = `${at}self_attn.`;
  const mlp = `${at}mlp.`;
  const headNorm = (name: string) => whole(`${attention}${name}.weight`, [headSize]);
  const queryRows = heads * headSize;
  const keyRows = keyValueHeads * headSize;
  return {
    arrangement: 'pre_norm',
    attentionNorm: rmsNormLayer(`${at}input_layernorm`, C, eps),
    attention: {
      heads,
      keyValueHeads,
      headSize,
      scale: headSize ** -0.5,
      window,
      queryKeyValue: fused
        ? linearLayer(`${attention}qkv_proj`, [queryRows + 2 * keyRows, C], biases.queryKeyValue)
        : joined(
            linearLayer(`${attention}q_proj`, [queryRows, C], biases.queryKeyValue),
            linearLayer(`${attention}k_proj`, [keyRows, C], biases.queryKeyValue),
            linearLayer(`${attention}v_proj`, [keyRows, C], biases.queryKeyValue),
          ),
      headNorms: headNorms ? { query: headNorm('q_norm'), key: headNorm('k_norm'), eps } : undefined,
      output: linearLayer(`${attention}o_proj`, [C, queryRows], biases.output),
    },
    mlpNorm: rmsNormLayer(`${at}post_attention_layernorm`, C, eps),
    mlp: {
      kind: 'gated',
      activation: config.activation('hidden_act', 'silu'),
      up: fused
        ? linearLayer(`${mlp}gate_up_proj`, [2 * F, C], biases.mlp)
        : joined(linearLayer(`${mlp}gate_proj`, [F, C], biases.mlp), linearLayer(`${mlp}up_proj`, [F, C], biases.mlp)),
      down: linearLayer(`${mlp}down_proj`, [C, F], biases.mlp),
    },
  };
}

/** One layer that computes what several do, one below the other. */
export function joined(...parts: readonly LinearLayer[]): LinearLayer {
  const biases = parts.flatMap(({ bias }) => (bias ? [bias] : []));
  return {
    weight: stacked(...parts.map(({ weight }) => weight)),
    bias: biases.length > 0 ? stacked(...biases) : undefined,
  };
}
