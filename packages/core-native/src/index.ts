/** @ds/core-native: numbers, memory, streams, kernels and collectives. Knows no gradient and no model. */
import { native } from './loader';

export { type RankEnvironment, readRankEnvironment } from './collectives/environment';
export { type LaunchOptions, type LaunchResult, launch, type RankExit, type RankLine } from './collectives/launch';
export { findNccl } from './collectives/nccl';
export type { GroupCounters, Primitive, Traffic } from './collectives/primitives';
export {
  type CallOptions,
  type EnvironmentOptions,
  type GroupOptions,
  ProcessGroup,
  type ReduceOptions,
} from './collectives/process-group';
export { cudaGemmLibrary } from './cublaslt';
export { cudaDevices, Device, type DeviceName, device, type Event, leastCapability, Stream, withOwner } from './device';
export { DsError, type DsErrorCode, type DsErrorFields } from './errors';
export { Graph } from './graph';
export * from './ops/adamw';
export * from './ops/attention';
export { type BlockDrawing, BlockLayout, blockSizes } from './ops/block-layout';
export * from './ops/block-matmul';
export * from './ops/cast';
export * from './ops/cross-entropy';
export * from './ops/dropout';
export * from './ops/elementwise';
export * from './ops/embedding';
export * from './ops/fill-normal';
export * from './ops/lamb';
export * from './ops/layer-norm';
export * from './ops/linear';
export * from './ops/lion';
export * from './ops/packed-linear';
export * from './ops/paged-attention';
export * from './ops/reduce';
export * from './ops/rms-norm';
export * from './ops/silu-gate';
export {
  type SparseAttentionOptions,
  sparseAttention,
  sparseAttentionBackward,
} from './ops/sparse-attention';
export { measureRoofline, type RooflineKind } from './roofline';
export { type DType, dtypeBytes, packNumbers, type TypedArray, unpackNumbers } from './tensor/dtype';
export { adopt, drop, keep, scope } from './tensor/scope';
export { liveTensors, numelOf, Tensor, type TensorOptions } from './tensor/tensor';

/** Number of threads that the arithmetic of this process uses. */
export function threads(): number {
  return native.threads();
}

/** Changes the number of threads; default is one a core. Ranks on one host share its cores: each takes its part. */
export function setThreads(threads: number): void {
  native.set_threads(threads);
}

/** The vector instruction set in use, and those that this machine and build could use. `DS_CPU_ISA` chooses one. */
export function cpuFeatures(): { isa: string; supported: string[] } {
  return native.cpu();
}

/**
 * Who computes matrix products: whether a library is in this build, and what `linear` takes. `auto`: our own kernels, but
 * the library's for gradients of weights. `DS_GEMM` chooses.
 */
export function matrixProduct(): { library: boolean; choice: 'auto' | 'openblas' | 'internal' } {
  return native.gemm();
}
