/** @ds/nn: gradients, layers and models. Knows neither ZeRO nor files. */
export { currentTape, Tape, type TapeNode } from './autograd/tape';
export * from './functional/attention-block';
export { embedding } from './functional/embedding';
export { type HeadLossOptions, headLoss } from './functional/head-loss';
export { layerNorm, type NormParameters } from './functional/layer-norm';
export type { LinearParameters } from './functional/linear';
export { type MlpParameters, mlpBlock } from './functional/mlp-block';
export {
  type BloomConfig,
  bloomConfigFromJson,
  bloomConfigToJson,
  bloomParameterCount,
  bloomPresets,
} from './models/bloom/config';
export { Bloom } from './models/bloom/model';
export { exportedName, matchBloomNames } from './models/bloom/names';
export type { CausalLM, CausalLMBatch, CausalLMShape, CausalLMTraining } from './models/causal-lm';
export type {
  Activation,
  AttentionLayer,
  ContextLimit,
  DecoderDescription,
  DecoderLayer,
  LinearLayer,
  MlpLayer,
  NormLayer,
  Positions,
  Rotary,
  StoredRows,
  StoredWeight,
} from './models/decoder/description';
export { type RotaryScaling, rotaryTable } from './models/decoder/rotary';
export { parameterCount, tensorsOf } from './models/decoder/stored-weight';
export { matchTensorNames } from './models/decoder/tensor-names';
export { createModel, familyOf, type ModelFamily, modelFamilies } from './models/families';
export { FullStorage, type FullStorageOptions, holdFull, type UnitBuffers } from './module/full-storage';
export { type Initializer, Parameter, type ParameterSpec } from './module/parameter';
export { runUse, type Unit, type UnitObserver, type UnitUse, withObserver } from './module/unit';
export { LayoutCache } from './sparse/layout-cache';
export { extendPositionEmbedding, type PaddedRows, padToBlockSize, unpad } from './sparse/pad';
export { type SparseLayout, sparseLayout } from './sparse/sparse-layout';
export {
  type ResolvedSparsity,
  resolveSparsity,
  type SparseDirection,
  type SparsityConfig,
  type SparsityMode,
  type SparsityProblem,
  sparseBlockSizes,
  sparsityDefaults,
  sparsityModes,
  sparsityProblems,
} from './sparse/sparsity-config';
