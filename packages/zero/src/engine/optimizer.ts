/** What the engine asks of an optimizer: to work over what this rank owns of a unit. */
import type { Tensor } from '@ds/core-native';
import type { Parameter } from '@ds/nn';
import type { UnitStorage } from '../partition/unit-storage';

/** Which parameters decay: all, or only those with two dims or more (not biases and norms). */
export type DecayGroups = 'all' | 'matrices';

export interface OptimizerStep {
  /** From 1 on; counts the steps that were taken. */
  readonly step: number;
  readonly lr: number;
  readonly beta1: number;
  /** What gradients are multiplied with: clipping. */
  readonly gradScale: number;
}

export interface Optimizer {
  /** Queues the update of what this rank owns of a unit. */
  update(storage: UnitStorage, step: OptimizerStep): void;
  /** For one that needs norms of whole parameters: queues what comes before them. */
  moments?(storage: UnitStorage, step: OptimizerStep): void;
  /** What must be summed over the ranks between the two. */
  readonly norms?: Tensor;
}

export function decays(groups: DecayGroups, parameter: Parameter): boolean {
  return groups === 'all' || parameter.shape.length >= 2;
}
