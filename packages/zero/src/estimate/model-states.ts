/**
 * Bytes of parameters, gradients and optimizer states per rank, by ZeRO stage.
 *
 * Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020), sections 3.1 and 5.
 */
import { requireAtLeast, requireCount } from './checks';

export type ZeroStage = 0 | 1 | 2 | 3;

/** Bytes one parameter costs in each of the three model states. */
export interface BytesPerParam {
  /** Working weights: 2 in bf16, 4 in fp32. */
  readonly params: number;
  /** Gradients as they are accumulated: 2 in bf16, 4 in fp32. */
  readonly grads: number;
  /** K of the paper. Adam: 4 + 4 for the moments, and 4 for the fp32 master weights where the working weights are 16-bit. */
  readonly optimizer: number;
}

/** The paper's mixed precision: 2 + 2 + 12 bytes, 16Ψ in all. bf16 weights with bf16 gradients cost the same. */
export const mixedPrecisionAdam: BytesPerParam = Object.freeze({ params: 2, grads: 2, optimizer: 12 });
/** Our default in bf16: gradients accumulate in fp32, 18Ψ in all. */
export const bf16AdamFp32Grads: BytesPerParam = Object.freeze({ params: 2, grads: 4, optimizer: 12 });
/** Everything in fp32: the weights are their own master copy, 16Ψ in all. */
export const fp32Adam: BytesPerParam = Object.freeze({ params: 4, grads: 4, optimizer: 8 });

/** Gives the bytes Adam needs for a pair of dtypes; Lamb's are the same. */
export function adamBytesPerParam(paramDtype: 'fp32' | 'bf16', gradDtype: 'fp32' | 'bf16'): BytesPerParam {
  if (paramDtype === 'fp32') return fp32Adam;
  return gradDtype === 'fp32' ? bf16AdamFp32Grads : mixedPrecisionAdam;
}

/** Gives the bytes Lion needs for a pair of dtypes: one moment less than Adam, K = 8. */
export function lionBytesPerParam(paramDtype: 'fp32' | 'bf16', gradDtype: 'fp32' | 'bf16'): BytesPerParam {
  const adam = adamBytesPerParam(paramDtype, gradDtype);
  return { ...adam, optimizer: adam.optimizer - 4 };
}

export interface ModelStateQuery {
  /** Ψ, the number of parameters. */
  readonly params: number;
  /** N, the ranks the states are cut over (the data-parallel degree). */
  readonly world: number;
  readonly stage: ZeroStage;
  /** Default: {@link mixedPrecisionAdam}, as in the paper. */
  readonly bytesPerParam?: BytesPerParam;
}

/** Model-state bytes of one rank. Exact quotients: padding is the plan's, not the formula's, and may add up to one element per unit and rank. */
export interface ModelStateBytes {
  readonly paramsBytes: number;
  readonly gradsBytes: number;
  readonly optimizerBytes: number;
  readonly modelStateBytes: number;
}

/**
 * Gives the model-state bytes of one rank: b_p/(N if stage 3) + b_g/(N if stage ≥ 2) + K/(N if stage ≥ 1), each times Ψ.
 *
 * @throws DsError CONFIG when params < 0 or world is not an integer ≥ 1
 */
export function modelStateBytes(query: ModelStateQuery): ModelStateBytes {
  const { params, world, stage, bytesPerParam = mixedPrecisionAdam } = query;
  requireAtLeast('modelStateBytes', 'params', params, 0);
  requireCount('modelStateBytes', 'world', world);
  // Multiplied before dividing: the quotient is then rounded once, and exact for the powers of two of the paper's tables.
  const paramsBytes = (params * bytesPerParam.params) / (stage === 3 ? world : 1);
  const gradsBytes = (params * bytesPerParam.grads) / (stage >= 2 ? world : 1);
  const optimizerBytes = (params * bytesPerParam.optimizer) / (stage >= 1 ? world : 1);
  return { paramsBytes, gradsBytes, optimizerBytes, modelStateBytes: paramsBytes + gradsBytes + optimizerBytes };
}

export interface MaxParamsQuery {
  /** Memory of one rank's device. */
  readonly memoryBytes: number;
  /** Data-parallel degree N. */
  readonly world: number;
  readonly stage: ZeroStage;
  /** Ranks one model copy is cut over by tensor parallelism; default 1. */
  readonly modelParallel?: number;
  readonly bytesPerParam?: BytesPerParam;
}

/**
 * Gives the largest Ψ whose model states alone fill a rank's memory (no activations, no buffers): the theory of the paper's Table 2.
 *
 * @throws DsError CONFIG when an argument is out of range
 */
export function maxParams(query: MaxParamsQuery): number {
  const { memoryBytes, world, stage, modelParallel = 1, bytesPerParam = mixedPrecisionAdam } = query;
  requireAtLeast('maxParams', 'memoryBytes', memoryBytes, 0);
  requireCount('maxParams', 'modelParallel', modelParallel);
  const perParam = modelStateBytes({ params: 1, world, stage, bytesPerParam }).modelStateBytes;
  return (modelParallel * memoryBytes) / perParam;
}

export interface HpzQuery {
  readonly params: number;
  readonly world: number;
  /** Ranks of the second copy of the weights, usually those of one node. */
  readonly partitionSize: number;
  readonly bytesPerParam?: BytesPerParam;
}

/**
 * Gives the model-state bytes of one rank under hpZ: stage 3 plus a copy of the working weights cut over `partitionSize` ranks.
 *
 * Source: Wang et al., "ZeRO++: Extremely Efficient Collective Communication for Giant Model Training" (2023), section 3.2.
 *
 * @throws DsError CONFIG when an argument is out of range
 */
export function hpzModelStateBytes(query: HpzQuery): number {
  const { params, world, partitionSize, bytesPerParam = mixedPrecisionAdam } = query;
  requireCount('hpzModelStateBytes', 'partitionSize', partitionSize);
  const stage3 = modelStateBytes({ params, world, stage: 3, bytesPerParam }).modelStateBytes;
  return stage3 + (params * bytesPerParam.params) / partitionSize;
}
