/** Configs: DeepSpeed's JSON and the config of `ds train`, checked and resolved. */
export type { BatchSizes } from './batch';
export { ConfigError, type ConfigProblem, type ProblemKind } from './config-error';
export {
  type Auto,
  type DeepSpeedConfig,
  type DeepSpeedOptions,
  defaultSeed,
  loadDeepSpeedConfig,
  type Precision,
  parseDeepSpeedConfig,
  type ZeroConfig,
} from './deepspeed-config';
export { deepSpeedJsonSchema } from './deepspeed-schema';
export type { AdamConfig, LambConfig, LionConfig, OptimizerConfig } from './optimizer-config';
export {
  type InlineData,
  loadTrainConfig,
  parseTrainConfig,
  type TrainConfig,
  type TrainOptions,
  type TrainOverrides,
} from './train-config';
