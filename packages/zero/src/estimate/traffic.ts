/**
 * Elements and bytes a rank sends per optimizer step, by ZeRO stage, exact for ring and direct collectives alike.
 *
 * Source: ZeRO (2020), section 7; the factor (N−1)/N is the exact share that leaves a rank in an all-gather or a reduce-scatter.
 */
import { requireAtLeast, requireCount } from './checks';
import type { ZeroStage } from './model-states';

export interface TrafficQuery {
  /** Ψ. */
  readonly params: number;
  /** N. */
  readonly world: number;
  readonly stage: ZeroStage;
  /** Bytes of a gathered weight; default 2 (16-bit). */
  readonly paramBytes?: number;
  /** Bytes of a gradient on the wire; default 2. */
  readonly gradBytes?: number;
  /** Micro-batches per optimizer step; default 1. */
  readonly accumulation?: number;
  /** `step` (default, the paper's volume) sums micro-batches locally first; `microBatch` reduces each one, so that no rank keeps full gradients. */
  readonly reduceEvery?: 'step' | 'microBatch';
  /** Stage 3: whether weights are released after the forward pass and gathered again for the backward; default true. */
  readonly releaseAfterForward?: boolean;
}

/** What one rank sends per optimizer step. Exact quotients, without padding. */
export interface Traffic {
  readonly gradElements: number;
  readonly paramElements: number;
  readonly elements: number;
  readonly bytes: number;
}

/**
 * Gives what one rank sends per optimizer step: 2(N−1)/N·Ψ elements in stages 0–2 and 3(N−1)/N·Ψ in stage 3, without accumulation.
 *
 * Stage 0 all-reduces gradients (a reduce-scatter and an all-gather of gradients); stages 1 and 2 reduce-scatter gradients and all-gather the updated
 * weights; stage 3 reduce-scatters gradients and gathers the weights for each forward and each backward pass. Stage 1 and 2 of DeepSpeed send 3Ψ by
 * default, because there a bucket of several owners is all-reduced whole.
 *
 * @throws DsError CONFIG when an argument is out of range
 */
export function stepTraffic(query: TrafficQuery): Traffic {
  const { params, world, stage, paramBytes = 2, gradBytes = 2, accumulation = 1 } = query;
  const { reduceEvery = 'step', releaseAfterForward = true } = query;
  requireAtLeast('stepTraffic', 'params', params, 0);
  requireCount('stepTraffic', 'world', world);
  requireCount('stepTraffic', 'accumulation', accumulation);
  const oneWay = (params * (world - 1)) / world;
  const reductions = reduceEvery === 'microBatch' ? accumulation : 1;
  const gradElements = oneWay * reductions * (stage === 0 ? 2 : 1);
  const paramElements = oneWay * weightGathers(stage, accumulation, releaseAfterForward);
  return {
    gradElements,
    paramElements,
    elements: gradElements + paramElements,
    bytes: gradElements * gradBytes + paramElements * paramBytes,
  };
}

function weightGathers(stage: ZeroStage, accumulation: number, releaseAfterForward: boolean): number {
  if (stage === 0) return 0;
  if (stage < 3) return 1;
  return accumulation * (releaseAfterForward ? 2 : 1);
}

export interface ZeroPlusPlusQuery {
  readonly params: number;
  /** Weights travel as int8 (qwZ). */
  readonly quantizedWeights: boolean;
  /** The backward gather stays inside a node (hpZ). */
  readonly secondaryPartition: boolean;
  /** Gradients travel as int4 (qgZ). */
  readonly quantizedGrads: boolean;
}

/**
 * Gives the bytes per rank that cross nodes in one ZeRO++ step of 16-bit weights, for many ranks ((N−1)/N → 1), without the quantisers' scales.
 * All three together send a quarter of stage 3.
 *
 * Source: ZeRO++ (2023), Table 1.
 */
export function zeroPlusPlusInterNodeBytes(query: ZeroPlusPlusQuery): number {
  requireAtLeast('zeroPlusPlusInterNodeBytes', 'params', query.params, 0);
  const forwardGather = query.quantizedWeights ? 1 : 2;
  const backwardGather = query.secondaryPartition ? 0 : forwardGather;
  const reduce = query.quantizedGrads ? 0.5 : 2;
  return query.params * (forwardGather + backwardGather + reduce);
}
