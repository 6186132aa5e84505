/**
 * The model states of one unit on one rank: weights, gradients, master weights and moments, whole or cut as the policy
 * says, and the buffers that stand in for what is cut while the unit is at work.
 *
 * A full buffer *is* the parameters: `Parameter.data` and `.grad` are views into it, so nothing is copied in or out.
 */
import { copy, type Device, type DType, fill, keep, Tensor, withOwner } from '@ds/core-native';
import type { ShardPolicy } from './policy';
import { rangesBetween, type ShardRange, type UnitLayout } from './unit-layout';

export interface StorageOptions {
  readonly rank: number;
  readonly device: Device;
  readonly paramDtype: DType;
  readonly gradDtype: DType;
  /** Micro-batches in a step: with more than one, reduced gradients are summed beside the buffer that the next one fills. */
  readonly accumulation: number;
  /** How many the optimizer keeps of each element. */
  readonly moments: 1 | 2;
}

/** The names under which the device's account books each state. */
export const owners = {
  parameters: 'parameters',
  gradients: 'gradients',
  optimizer: 'optimizer states',
  gathered: 'gathered parameters',
  gradientBuffer: 'gradient buffers',
  activations: 'activations',
} as const;

/** The owners that ZeRO's formulas count. */
export const modelStateOwners = [owners.parameters, owners.gradients, owners.optimizer] as const;

export class UnitStorage implements Disposable {
  readonly layout: UnitLayout;
  readonly policy: ShardPolicy;
  /** This rank's weights, [shard], working dtype: a slice of the full buffer where that stays. */
  readonly paramShard: Tensor;
  /** What the optimizer works on, all of one size: the shard, or the whole unit. */
  readonly master: Tensor;
  readonly m: Tensor;
  /** The second moment, for an optimizer that has one. */
  readonly v: Tensor | undefined;
  readonly #device: Device;
  readonly #paramDtype: DType;
  readonly #gradDtype: DType;
  readonly #rank: number;
  readonly #persistentParam: Tensor | undefined;
  readonly #persistentGrad: Tensor | undefined;
  readonly #reduceInPlace: boolean;
  #gradShard: Tensor | undefined;
  #gathered: Tensor | undefined;
  #gradBuffer: Tensor | undefined;
  /** Everything to dispose at the end. */
  readonly #own: Tensor[] = [];

  constructor(layout: UnitLayout, policy: ShardPolicy, options: StorageOptions) {
    const { rank, device, paramDtype, gradDtype, accumulation, moments } = options;
    this.layout = layout;
    this.policy = policy;
    this.#rank = rank;
    this.#device = device;
    this.#paramDtype = paramDtype;
    this.#gradDtype = gradDtype;
    const { paddedElements: whole, shardElements: shard } = layout;
    const make = (owner: string, n: number, dtype: DType): Tensor => {
      const tensor = withOwner(owner, () => keep(Tensor.empty([n], { dtype, device })));
      fill(tensor, 0);
      this.#own.push(tensor);
      return tensor;
    };
    const slice = (full: Tensor): Tensor => {
      const tensor = keep(full.view([shard], rank * shard));
      this.#own.push(tensor);
      return tensor;
    };

    this.#persistentParam = policy.param === 'none' ? make(owners.parameters, whole, paramDtype) : undefined;
    this.paramShard = this.#persistentParam ? slice(this.#persistentParam) : make(owners.parameters, shard, paramDtype);
    this.#persistentGrad = policy.grad === 'none' ? make(owners.gradients, whole, gradDtype) : undefined;
    this.#reduceInPlace = this.#persistentGrad !== undefined && accumulation === 1;
    if (this.#reduceInPlace) this.#gradShard = slice(this.#persistentGrad!);
    const owned = policy.optim === 'none' ? whole : shard;
    // fp32 weights are their own master copy.
    this.master = paramDtype === 'f32' ? this.optimizedParam : make(owners.optimizer, owned, 'f32');
    this.m = make(owners.optimizer, owned, 'f32');
    this.v = moments === 2 ? make(owners.optimizer, owned, 'f32') : undefined;
    if (this.#persistentParam) this.#bindData(this.#persistentParam);
  }

  /** The pieces of parameters that the optimizer of this rank works on. */
  optimizedRanges(): ShardRange[] {
    const { shardElements, paddedElements } = this.layout;
    return this.policy.optim === 'none'
      ? rangesBetween(this.layout, 0, paddedElements)
      : rangesBetween(this.layout, this.#rank * shardElements, shardElements);
  }

  /** The working weights that the optimizer of this rank writes. */
  get optimizedParam(): Tensor {
    return this.policy.optim === 'none' ? this.#persistentParam! : this.paramShard;
  }

  /** The gradient that the optimizer of this rank reads. */
  get optimizedGrad(): Tensor {
    return this.policy.optim === 'none' ? this.#persistentGrad! : this.gradShard;
  }

  /** The whole weights, where they stay or while they are gathered. */
  get fullParam(): Tensor | undefined {
    return this.#persistentParam ?? this.#gathered;
  }

  /** The whole local gradient, where it stays or while it is open. */
  get fullGrad(): Tensor | undefined {
    return this.#persistentGrad ?? this.#gradBuffer;
  }

  /** Provides the buffer for the gathered weights and points the parameters at it. */
  openGathered(): Tensor {
    this.#gathered = this.#buffer(owners.gathered, this.#paramDtype);
    this.#bindData(this.#gathered);
    return this.#gathered;
  }

  closeGathered(): void {
    for (const { parameter } of this.layout.places) {
      parameter.data?.dispose();
      parameter.data = undefined;
    }
    this.#gathered?.dispose();
    this.#gathered = undefined;
  }

  /** Provides the buffer that backward writes into, its padding zero, and points the parameters at it. */
  openGradient(): void {
    const full = this.#persistentGrad ?? this.#buffer(owners.gradientBuffer, this.#gradDtype);
    if (!this.#persistentGrad) this.#gradBuffer = full;
    const { elements, paddedElements } = this.layout;
    if (paddedElements > elements) {
      using padding = keep(full.view([paddedElements - elements], elements));
      fill(padding, 0);
    }
    for (const { parameter, offset } of this.layout.places) {
      parameter.resetGrad();
      parameter.grad = keep(full.view(parameter.shape, offset));
    }
  }

  /** This rank's reduced gradient, [shard]. */
  get gradShard(): Tensor {
    return this.#gradShard!;
  }

  /**
   * Provides the reduced gradient, from the first reduction of a step on. Where it is not part of the full gradient it
   * comes and goes: so it is not there yet while activations and the buffers of the first units are at their peak.
   */
  openGradShard(): Tensor {
    const make = () => Tensor.empty([this.layout.shardElements], { dtype: this.#gradDtype, device: this.#device });
    this.#gradShard ??= withOwner(owners.gradients, () => keep(make()));
    return this.#gradShard;
  }

  /** Gives the reduced gradient back, after the step. */
  closeGradShard(): void {
    if (this.#reduceInPlace) return;
    this.#gradShard?.dispose();
    this.#gradShard = undefined;
  }

  /** Zeroes the gradients that no backward wrote: those of parameters which took no part in the loss. */
  fillMissingGradients(): void {
    for (const { parameter } of this.layout.places) if (!parameter.gradWritten) fill(parameter.grad!, 0);
  }

  closeGradient(): void {
    for (const { parameter } of this.layout.places) {
      parameter.grad?.dispose();
      parameter.grad = undefined;
    }
    this.#gradBuffer?.dispose();
    this.#gradBuffer = undefined;
  }

  /** Rounds the master weights into the working ones; for 16-bit weights, after something else than a step wrote the master. */
  castMaster(): void {
    if (this.master !== this.optimizedParam) copy(this.master, this.optimizedParam);
  }

  [Symbol.dispose](): void {
    this.closeGradient();
    this.closeGradShard();
    this.closeGathered();
    for (const tensor of this.#own.reverse()) tensor.dispose();
    this.#own.length = 0;
  }

  #buffer(owner: string, dtype: DType): Tensor {
    return withOwner(owner, () => keep(Tensor.empty([this.layout.paddedElements], { dtype, device: this.#device })));
  }

  #bindData(full: Tensor): void {
    for (const { parameter, offset } of this.layout.places) parameter.data = keep(full.view(parameter.shape, offset));
  }
}
