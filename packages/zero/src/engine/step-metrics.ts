/**
 * The numbers that a step needs from all ranks: the squared norm of every unit's gradient, and the loss.
 *
 * Every rank sums its own shards in f64, whatever the stage, and ranks are added in their order; so the norm, and with it
 * the factor of clipping, has the same bits at every stage.
 */
import { type Device, keep, type ProcessGroup, squareSum, sum, Tensor } from '@ds/core-native';
import type { UnitStorage } from '../partition/unit-storage';

export interface StepNumbers {
  /** Norm of the gradient over all parameters, before clipping. */
  readonly gradNorm: number;
  /** Mean loss over the global batch. */
  readonly loss: number;
  /** Units whose gradient is not finite. */
  readonly nonFiniteUnits: readonly number[];
}

export class StepMetrics implements Disposable {
  /** [units + 1] f64: squared norms, then the sum of all losses. */
  readonly #values: Tensor;
  readonly #units: number;
  #losses = 0;

  constructor(units: number, device: Device) {
    this.#units = units;
    this.#values = keep(Tensor.empty([units + 1], { dtype: 'f64', device }));
  }

  /** Adds the losses [R] of one micro-batch. */
  addLosses(losses: Tensor): void {
    using slot = keep(this.#values.view([1], this.#units));
    sum(losses, slot, this.#losses > 0);
    this.#losses += losses.numel;
  }

  /** Sums over the ranks and waits. `communicate` queues a collective in the order that all ranks share. */
  async reduce(
    storages: readonly UnitStorage[],
    group: ProcessGroup,
    communicate: (fn: () => void) => void,
  ): Promise<StepNumbers> {
    storages.forEach((storage, unit) => {
      using slot = keep(this.#values.view([1], unit));
      squareSum(storage.gradShard, slot);
    });
    communicate(() => group.allReduce(this.#values, this.#values));
    const values = await this.#read();
    const losses = this.#losses * group.size;
    this.#losses = 0;
    const squares = values.subarray(0, this.#units);
    return {
      gradNorm: Math.sqrt(squares.reduce((total, square) => total + square, 0)),
      loss: values[this.#units]! / losses,
      nonFiniteUnits: [...squares.keys()].filter((unit) => !Number.isFinite(squares[unit])),
    };
  }

  /** A plan's device has no numbers: there a step has a loss and a gradient of 0. */
  async #read(): Promise<Float64Array> {
    return this.#values.device.name === 'null' ? new Float64Array(this.#values.numel) : this.#values.numbers();
  }

  [Symbol.dispose](): void {
    this.#values.dispose();
  }
}
