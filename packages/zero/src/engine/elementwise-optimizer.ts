/** Adam and Lion over what this rank owns of a unit, in one pass: unscale, clip, decay, moments, 16-bit copy. */
import { adamwStep, keep, lionStep, type Tensor } from '@ds/core-native';
import type { AdamConfig, LionConfig } from '../config';
import type { UnitStorage } from '../partition/unit-storage';
import { type DecayGroups, decays, type Optimizer, type OptimizerStep } from './optimizer';

/** Elements of a storage's optimizer tensors that share a weight decay. */
interface Run {
  start: number;
  count: number;
  decays: boolean;
}

/** An element's update depends on nothing but the element, so neighbours go in one call. */
export class ElementwiseOptimizer implements Optimizer {
  readonly #config: AdamConfig | LionConfig;
  readonly #groups: DecayGroups;
  readonly #runs = new Map<UnitStorage, readonly Run[]>();

  constructor(config: AdamConfig | LionConfig, groups: DecayGroups) {
    this.#config = config;
    this.#groups = groups;
  }

  update(storage: UnitStorage, { step, lr, beta1, gradScale }: OptimizerStep): void {
    const config = this.#config;
    for (const { start, count, decays } of this.#runsOf(storage)) {
      const piece = (tensor: Tensor) => keep(tensor.view([count], start));
      using p = piece(storage.master);
      using m = piece(storage.m);
      using grad = piece(storage.optimizedGrad);
      using copy = piece(storage.optimizedParam);
      const common = {
        p,
        m,
        grad,
        ...(storage.master === storage.optimizedParam ? {} : { copy }),
        lr,
        betas: [beta1, config.beta2] as const,
        weightDecay: decays ? config.weightDecay : 0,
        gradScale,
      };
      if (config.type === 'Lion') {
        lionStep(common);
        continue;
      }
      using v = piece(storage.v!);
      const { eps, biasCorrection, decoupledWeightDecay } = config;
      adamwStep({ ...common, v, step, eps, biasCorrection, decay: decoupledWeightDecay ? 'decoupled' : 'l2' });
    }
  }

  /** Neighbouring pieces of one group go in one call; so a unit that decays as a whole is one sweep. */
  #runsOf(storage: UnitStorage): readonly Run[] {
    let runs = this.#runs.get(storage);
    if (!runs) {
      const made: Run[] = [];
      for (const { parameter, shardStart, count } of storage.optimizedRanges()) {
        const decay = decays(this.#groups, parameter);
        const last = made.at(-1);
        if (last && last.decays === decay && last.start + last.count === shardStart) last.count += count;
        else made.push({ start: shardStart, count, decays: decay });
      }
      runs = made;
      this.#runs.set(storage, runs);
    }
    return runs;
  }
}
