/**
 * Activation memory and what partitioning it costs, for GPT-like blocks.
 *
 * Sources: ZeRO (2020), sections 3.2, 6.1 and 8; Rajbhandari et al., "ZeRO-Infinity" (2021), sections 3 and 4.
 */
import { requireAtLeast, requireCount } from './checks';

export interface BlockShape {
  readonly layers: number;
  /** C. */
  readonly hidden: number;
  /** Micro-batch of one rank, B. */
  readonly batch: number;
  /** T. */
  readonly sequence: number;
}

function requireShape(op: string, shape: BlockShape): void {
  requireCount(op, 'layers', shape.layers);
  requireCount(op, 'hidden', shape.hidden);
  requireCount(op, 'batch', shape.batch);
  requireCount(op, 'sequence', shape.sequence);
}

/** Gives the elements a GPT-like model keeps for its backward pass: about 12·B·T·C per block (ZeRO, footnote of section 3.2). */
export function activationElements(shape: BlockShape): number {
  requireShape('activationElements', shape);
  return 12 * shape.hidden * shape.batch * shape.sequence * shape.layers;
}

export interface CheckpointQuery extends BlockShape {
  /** Bytes of one activation; default 2 (16-bit). */
  readonly elementBytes?: number;
  /** Blocks between two checkpoints; default 1: every block's input is kept. */
  readonly interval?: number;
  /** Ranks of tensor parallelism the checkpoints are cut over (P_a); default 1: every rank keeps them whole. */
  readonly partitions?: number;
}

/** Gives the bytes of the block inputs kept under activation checkpointing: B·T·C a block. */
export function activationCheckpointBytes(query: CheckpointQuery): number {
  const { layers, hidden, batch, sequence, elementBytes = 2, interval = 1, partitions = 1 } = query;
  requireShape('activationCheckpointBytes', query);
  requireCount('activationCheckpointBytes', 'interval', interval);
  requireCount('activationCheckpointBytes', 'partitions', partitions);
  return (elementBytes * batch * sequence * hidden * layers) / (interval * partitions);
}

export interface WorkingMemoryQuery {
  readonly hidden: number;
  readonly batch: number;
  readonly sequence: number;
  readonly heads: number;
  readonly interval?: number;
}

/** Gives the bytes of all activations between two checkpoints: B·T·ci·(16·C + 2·H·T) (ZeRO-Infinity, equation 5). */
export function activationWorkingBytes(query: WorkingMemoryQuery): number {
  const { hidden, batch, sequence, heads, interval = 1 } = query;
  requireShape('activationWorkingBytes', { layers: 1, hidden, batch, sequence });
  requireCount('activationWorkingBytes', 'heads', heads);
  requireCount('activationWorkingBytes', 'interval', interval);
  return batch * sequence * interval * (16 * hidden + 2 * heads * sequence);
}

/** Gives the bytes of weights and gradients of the largest operator, the C → 4C linear, in 16 bits: 16·C² (ZeRO-Infinity, equation 4). */
export function modelStateWorkingBytes(hidden: number): number {
  requireCount('modelStateWorkingBytes', 'hidden', hidden);
  return 16 * hidden * hidden;
}

/** Gives the parameters of a stack of GPT-like blocks, biases and norms aside: 12·L·C². */
export function transformerParams(layers: number, hidden: number): number {
  requireCount('transformerParams', 'layers', layers);
  requireCount('transformerParams', 'hidden', hidden);
  return 12 * layers * hidden * hidden;
}

/**
 * Gives the elements tensor parallelism sends per block with checkpointing, and what P_a adds: 12·B·T·C in six all-reduces, plus one gather of B·T·C.
 *
 * Source: ZeRO (2020), section 8.
 */
export function partitionedActivationTraffic(shape: Omit<BlockShape, 'layers'>): {
  baseElements: number;
  addedElements: number;
} {
  requireShape('partitionedActivationTraffic', { ...shape, layers: 1 });
  const inputElements = shape.batch * shape.sequence * shape.hidden;
  return { baseElements: 12 * inputElements, addedElements: inputElements };
}

/** The state whose transfer is to be hidden behind arithmetic. */
export type OffloadedState = 'paramsAndGrads' | 'optimizer' | 'activations';

export interface EfficiencyQuery {
  readonly state: OffloadedState;
  /** Bytes per second between the device and where the state lives. */
  readonly bandwidth: number;
  /** Achievable arithmetic of the device in operations per second; the paper takes 70e12 for a V100. */
  readonly peakFlops?: number;
  readonly batch: number;
  readonly sequence: number;
  readonly hidden: number;
  /** Blocks between two activation checkpoints; default 1. */
  readonly interval?: number;
}

/**
 * Gives the share of the peak that is reached when a state is fetched over `bandwidth` without overlap: ait·bw / (ait·bw + peak).
 * Arithmetic per byte: B·T for weights and gradients, B·T/4 for optimizer states, 24·C·ci for checkpoints.
 *
 * Source: ZeRO-Infinity (2021), section 4.
 *
 * @throws DsError CONFIG when an argument is out of range
 */
export function transferEfficiency(query: EfficiencyQuery): number {
  const { state, bandwidth, peakFlops = 70e12, batch, sequence, hidden, interval = 1 } = query;
  requireAtLeast('transferEfficiency', 'bandwidth', bandwidth, 0);
  requireAtLeast('transferEfficiency', 'peakFlops', peakFlops, 1);
  requireShape('transferEfficiency', { layers: 1, hidden, batch, sequence });
  const flopsPerByte = {
    paramsAndGrads: batch * sequence,
    optimizer: (batch * sequence) / 4,
    activations: 24 * hidden * interval,
  }[state];
  return (flopsPerByte * bandwidth) / (flopsPerByte * bandwidth + peakFlops);
}
