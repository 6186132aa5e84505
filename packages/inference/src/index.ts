/** @ds/inference: a model folder in memory that writes, scores and gives logits. Knows no model by name. */

export type { LoadProgress } from './decoder/load-weights';
export type { StepBatch, StepResult, StepRunner } from './decoder/step-runner';
export type { GenerateOptions } from './generation/generate-options';
export { type GenerationResult, GenerationStream } from './generation/generation-stream';
export type { LikelyToken, TokenLogprob } from './generation/logprobs';
export type { AllowedIds } from './generation/next-token';
export { type Distribution, nextTokenDistribution, type SamplingOptions } from './generation/next-token';
export type { FinishReason, GeneratedToken, TokenMask } from './generation/sequence';
export { InferenceEngine, type ModelShape, type Prompt, type ServeOptions } from './inference-engine';
export type { LoadOptions } from './model/load-folder';
export { checkServerAddress, type RunningServer, type ServeEngineOptions, serveEngine } from './serve-engine';
export type { Served } from './server/http/http-server';
export type { ServerLimits } from './server/limits';
export type { ServerOptions } from './server/model-server';
export type { AnswerStream, ServedAnswer, ServedResult } from './serving/answer-stream';
export { type Drafter, type DraftRequest, NgramDrafter, type NgramDrafterOptions } from './serving/drafter';
export { ModelDrafter, type ModelDrafterOptions } from './serving/model-drafter';
export type { TokenEvent } from './serving/request';
export type { RequestOptions } from './serving/request-options';
export { defaultLimits, type SchedulerLimits } from './serving/scheduler';
export { ServingEngine, type ServingOptions } from './serving/serving-engine';
export type { ServingMetrics } from './serving/serving-metrics';
