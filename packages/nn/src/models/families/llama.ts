/** Llama 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024). */
import type { ModelFamily } from '../families';
import { describeRmsDecoder } from './rms-decoder';
import { readWindows } from './sizes';

export const llama: ModelFamily = {
  modelType: 'llama',
  describe: (json, source) =>
    describeRmsDecoder('llama', json, source, (config, layers) => {
      const bias = config.flag('attention_bias', false);
      return {
        biases: { queryKeyValue: bias, output: bias, mlp: config.flag('mlp_bias', false) },
        headNorms: false,
        fused: false,
        windows: readWindows(config, layers, undefined, () => false),
      };
    }),
};
