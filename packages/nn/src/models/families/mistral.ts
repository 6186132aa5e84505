/** Mistral (Jiang et al. 2023): Llama with a sliding window in every layer. */
import type { ModelFamily } from '../families';
import { describeRmsDecoder } from './rms-decoder';
import { readWindows } from './sizes';

/** Where a config does not name the key; null is what turns the window off. */
const defaultWindow = 4096;

export const mistral: ModelFamily = {
  modelType: 'mistral',
  describe: (json, source) =>
    describeRmsDecoder('mistral', json, source, (config, layers) => {
      const window = json.sliding_window === undefined ? defaultWindow : config.optionalCount('sliding_window');
      return {
        biases: { queryKeyValue: false, output: false, mlp: false },
        headNorms: false,
        fused: false,
        windows: readWindows(config, layers, window, () => true),
      };
    }),
};
