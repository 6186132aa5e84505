/** @ds/inference: a model folder in memory that writes, scores and gives logits. Knows no model by name. */

export type { LoadProgress } from './decoder/load-weights';
export type { StepBatch, StepResult, StepRunner } from './decoder/step-runner';
export type { GenerateOptions } from './generation/generate-options';
export { type GenerationResult, GenerationStream } from './generation/generation-stream';
export { type Distribution, nextTokenDistribution, type SamplingOptions } from './generation/next-token';
export type { FinishReason, GeneratedToken } from './generation/sequence';
export { InferenceEngine, type ModelShape, type Prompt } from './inference-engine';
export type { LoadOptions } from './model/load-folder';
