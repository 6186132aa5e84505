/**
 * Qwen 2 and 3 (Yang et al. 2024, 2025): Llama with a window in the upper layers if it is switched on; Qwen 2 with biases on
 * queries, keys and values, Qwen 3 with norms of each head's query and key.
 */
import type { ConfigReader } from '../decoder/config-reader';
import type { ModelFamily } from '../families';
import { describeRmsDecoder } from './rms-decoder';
import { readWindows } from './sizes';

function windowsOf(config: ConfigReader, layers: number): (number | undefined)[] {
  const window = config.flag('use_sliding_window', false) ? config.count('sliding_window', 4096) : undefined;
  const firstSliding = config.number('max_window_layers', 28);
  return readWindows(config, layers, window, (layer) => layer >= firstSliding);
}

export const qwen2: ModelFamily = {
  modelType: 'qwen2',
  describe: (json, source) =>
    describeRmsDecoder('qwen2', json, source, (config, layers) => ({
      biases: { queryKeyValue: true, output: false, mlp: false },
      headNorms: false,
      fused: false,
      windows: windowsOf(config, layers),
    })),
};

export const qwen3: ModelFamily = {
  modelType: 'qwen3',
  describe: (json, source) =>
    describeRmsDecoder('qwen3', json, source, (config, layers) => {
      const bias = config.flag('attention_bias', false);
      return {
        biases: { queryKeyValue: bias, output: bias, mlp: false },
        headNorms: true,
        fused: false,
        windows: windowsOf(config, layers),
      };
    }),
};
