/** Adam over the pieces of a unit that this rank owns, in one pass each: unscale, clip, decay, moments, 16-bit copy. */
import { adamwStep, keep, type Tensor } from '@ds/core-native';
import type { Parameter } from '@ds/nn';
import type { AdamConfig } from '../config';
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

/** Elements of a storage's optimizer tensors that share a weight decay. */
interface Run {
  start: number;
  count: number;
  decays: boolean;
}

export class Optimizer {
  readonly #config: AdamConfig;
  readonly #groups: DecayGroups;
  readonly #runs = new Map<UnitStorage, readonly Run[]>();

  constructor(config: AdamConfig, groups: DecayGroups) {
    this.#config = config;
    this.#groups = groups;
  }

  /** Queues the update of what this rank owns of a unit. */
  update(storage: UnitStorage, step: OptimizerStep): void {
    const { beta2, eps, weightDecay, biasCorrection, decoupledWeightDecay } = this.#config;
    for (const { start, count, decays } of this.#runsOf(storage)) {
      const piece = (tensor: Tensor) => keep(tensor.view([count], start));
      using p = piece(storage.master);
      using m = piece(storage.m);
      using v = piece(storage.v);
      using grad = piece(storage.optimizedGrad);
      using copy = piece(storage.optimizedParam);
      adamwStep({
        p,
        m,
        v,
        grad,
        ...(storage.master === storage.optimizedParam ? {} : { copy }),
        step: step.step,
        lr: step.lr,
        betas: [step.beta1, beta2],
        eps,
        weightDecay: decays ? weightDecay : 0,
        biasCorrection,
        decay: decoupledWeightDecay ? 'decoupled' : 'l2',
        gradScale: step.gradScale,
      });
    }
  }

  /** Neighbouring pieces of one group go in one call; so a unit that decays as a whole is one sweep. */
  #runsOf(storage: UnitStorage): readonly Run[] {
    let runs = this.#runs.get(storage);
    if (!runs) {
      const made: Run[] = [];
      for (const { parameter, shardStart, count } of storage.optimizedRanges()) {
        const decays = this.#decays(parameter);
        const last = made.at(-1);
        if (last && last.decays === decays && last.start + last.count === shardStart) last.count += count;
        else made.push({ start: shardStart, count, decays });
      }
      runs = made;
      this.#runs.set(storage, runs);
    }
    return runs;
  }

  #decays(parameter: Parameter): boolean {
    return this.#groups === 'all' || parameter.shape.length >= 2;
  }
}
