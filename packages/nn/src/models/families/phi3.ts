/** Phi-3 and 4 (Abdin et al. 2024): Llama with fused projections in the file, and LongRoPE in the long variants. */
import type { ModelFamily } from '../families';
import { describeRmsDecoder } from './rms-decoder';
import { readWindows } from './sizes';

export const phi3: ModelFamily = {
  modelType: 'phi3',
  describe: (json, source) =>
    describeRmsDecoder('phi3', json, source, (config, layers) => ({
      biases: { queryKeyValue: false, output: false, mlp: false },
      headNorms: false,
      fused: true,
      windows: readWindows(config, layers, config.optionalCount('sliding_window'), () => true),
    })),
};
