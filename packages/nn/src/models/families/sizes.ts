/** What every family reads the same way, and what none can take. */
import type { ConfigReader } from '../decoder/config-reader';

/** Heads, by the keys of most families. @throws FORMAT for numbers that do not divide */
export function attentionSizes(
  config: ConfigReader,
  hiddenSize: number,
): { heads: number; keyValueHeads: number; headSize: number } {
  const heads = config.count('num_attention_heads');
  const keyValueHeads = config.count('num_key_value_heads', heads);
  const headSize = config.optionalCount('head_dim') ?? hiddenSize / heads;
  if (!Number.isInteger(headSize))
    config.refuse('FORMAT', 'a hidden_size that the heads divide, or head_dim', `${hiddenSize} and ${heads} heads`);
  if (heads % keyValueHeads !== 0)
    config.refuse('FORMAT', `num_key_value_heads that divide ${heads} heads`, String(keyValueHeads));
  return { heads, keyValueHeads, headSize };
}

/**
 * The window of each layer, by `layer_types` or, where a file has none, by what `isSliding` says of layer i.
 *
 * @param window the size of a sliding window, undefined where the config says there is none
 */
export function readWindows(
  config: ConfigReader,
  layers: number,
  window: number | undefined,
  isSliding: (layer: number) => boolean,
): (number | undefined)[] {
  const types = config.value('layer_types')?.value;
  if (types === undefined)
    return Array.from({ length: layers }, (_, i) => (window !== undefined && isSliding(i) ? window : undefined));
  if (!Array.isArray(types) || types.length !== layers)
    config.refuse('FORMAT', `a list of ${layers} layer_types, one a layer`, JSON.stringify(types));
  return (types as unknown[]).map((type) => {
    if (type === 'full_attention') return undefined;
    if (type !== 'sliding_attention')
      config.refuse('UNSUPPORTED', 'layer_types "full_attention" or "sliding_attention"', JSON.stringify(type));
    return window ?? config.refuse('FORMAT', 'sliding_window for layer_types "sliding_attention"', 'none');
  });
}

/** Files of quantised weights (GPTQ, AWQ, FP8, ...) have tensors of their own. */
export function refuseQuantized(config: ConfigReader): void {
  const section = config.section('quantization_config');
  if (!section) return;
  const method = JSON.stringify(section.value('quant_method')?.value ?? 'unnamed');
  config.refuse(
    'UNSUPPORTED',
    'weights in f32, bf16 or f16',
    `quantization_config with quant_method ${method}`,
    'take the original model; it can be quantised while it is loaded',
  );
}
