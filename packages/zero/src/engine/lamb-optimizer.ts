/**
 * LAMB over shards. Its trust ratios need the norms of whole parameters, whose pieces lie on several ranks: so a step is
 * moments and squares of every piece, one sum over the ranks for all parameters, and the update of every piece.
 *
 * Squares are summed by the same pieces at every stage, in the order of their ranks: a rank that owns a whole unit sums
 * the pieces that the ranks would own. So the ratios have the same bits at every stage.
 */
import { type Device, fill, keep, type LambPiece, lambMoments, lambStep, Tensor } from '@ds/core-native';
import type { Parameter } from '@ds/nn';
import type { LambConfig } from '../config';
import { shardRanges } from '../partition/unit-layout';
import type { UnitStorage } from '../partition/unit-storage';
import type { Plan } from '../plan/plan';
import { type DecayGroups, decays, type Optimizer, type OptimizerStep } from './optimizer';

/** A piece of a parameter that one rank owns, or would own. */
interface Piece {
  parameter: Parameter;
  /** In the optimizer's tensors of the unit. */
  start: number;
  count: number;
}

export class LambOptimizer implements Optimizer {
  /** [parameters, 2] f64: squares of the weights and of the direction; 0 for what lies on other ranks. */
  readonly norms: Tensor;
  readonly #config: LambConfig;
  readonly #groups: DecayGroups;
  readonly #places = new Map<Parameter, number>();
  readonly #pieces = new Map<UnitStorage, readonly Piece[]>();

  constructor(config: LambConfig, groups: DecayGroups, plan: Plan, device: Device) {
    this.#config = config;
    this.#groups = groups;
    for (const { layout } of plan.units)
      for (const { parameter } of layout.places) this.#places.set(parameter, this.#places.size);
    this.norms = keep(Tensor.empty([this.#places.size, 2], { dtype: 'f64', device }));
  }

  moments(storage: UnitStorage, step: OptimizerStep): void {
    this.#clear(storage);
    for (const piece of this.#piecesOf(storage)) {
      using grad = keep(storage.optimizedGrad.view([piece.count], piece.start));
      this.#withPiece(storage, piece, step, (common) =>
        lambMoments({ ...common, grad, gradScale: step.gradScale, accumulate: true }),
      );
    }
  }

  update(storage: UnitStorage, step: OptimizerStep): void {
    const { minCoefficient, maxCoefficient, biasCorrection } = this.#config;
    for (const piece of this.#piecesOf(storage)) {
      using copy = keep(storage.optimizedParam.view([piece.count], piece.start));
      this.#withPiece(storage, piece, step, (common) =>
        lambStep({
          ...common,
          ...(storage.master === storage.optimizedParam ? {} : { copy }),
          step: step.step,
          lr: step.lr,
          minCoefficient,
          maxCoefficient,
          biasCorrection,
        }),
      );
    }
  }

  #withPiece(
    storage: UnitStorage,
    { parameter, start, count }: Piece,
    { beta1 }: OptimizerStep,
    fn: (common: LambPiece) => void,
  ): void {
    const { beta2, eps, weightDecay } = this.#config;
    using p = keep(storage.master.view([count], start));
    using m = keep(storage.m.view([count], start));
    using v = keep(storage.v!.view([count], start));
    using squares = keep(this.norms.view([2], 2 * this.#places.get(parameter)!));
    const decay = decays(this.#groups, parameter) ? weightDecay : 0;
    fn({ p, m, v, squares, betas: [beta1, beta2], eps, weightDecay: decay });
  }

  /** Pieces add to what is there; a parameter without one on this rank adds nothing. */
  #clear({ layout }: UnitStorage): void {
    const [first] = layout.places;
    if (!first) return;
    using own = keep(this.norms.view([layout.places.length, 2], 2 * this.#places.get(first.parameter)!));
    fill(own, 0);
  }

  #piecesOf(storage: UnitStorage): readonly Piece[] {
    let pieces = this.#pieces.get(storage);
    if (!pieces) {
      pieces = ownedPieces(storage);
      this.#pieces.set(storage, pieces);
    }
    return pieces;
  }
}

/** Cut as the ranks' shards are, also where this rank owns all of them. */
function ownedPieces(storage: UnitStorage): Piece[] {
  const { layout, policy } = storage;
  if (policy.optim === 'dp')
    return storage
      .optimizedRanges()
      .map(({ parameter, shardStart, count }) => ({ parameter, start: shardStart, count }));
  return Array.from({ length: layout.world }, (_, rank) =>
    shardRanges(layout, rank).map(({ parameter, shardStart, count }) => ({
      parameter,
      start: rank * layout.shardElements + shardStart,
      count,
    })),
  ).flat();
}
