/** A parameter: its name, shape and first values, and, while somebody holds them, its data and gradient. */
import { DsError, numelOf, type Tensor } from '@ds/core-native';

export type Initializer =
  | { readonly kind: 'normal'; readonly std: number }
  | { readonly kind: 'constant'; readonly value: number };

export interface ParameterSpec {
  /** Hugging Face's name, without the model's prefix. */
  name: string;
  shape: readonly number[];
  init: Initializer;
}

/**
 * Describes a parameter. It owns no memory: whoever stores the model (an inference engine, a ZeRO engine) puts `data`
 * there before the unit is used and `grad` before its backward, and takes them away afterwards.
 */
export class Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  readonly init: Initializer;
  readonly numel: number;
  /** The full value, while it is gathered. */
  data: Tensor | undefined;
  /** Where backward writes, while somebody wants gradients. */
  grad: Tensor | undefined;
  #gradWritten = false;

  constructor(spec: ParameterSpec) {
    this.name = spec.name;
    this.shape = spec.shape;
    this.init = spec.init;
    this.numel = numelOf(spec.shape);
  }

  /** The full value. @throws INTERNAL when nobody has gathered it */
  get value(): Tensor {
    return this.data ?? this.#missing('data', 'gathered before its unit runs');
  }

  /**
   * Where to write the gradient. The first writer of a micro-batch overwrites (nobody zeroes buffers), the second one,
   * of a tied weight, accumulates.
   */
  gradTarget(): { into: Tensor; accumulate: boolean } {
    const into = this.grad ?? this.#missing('grad', 'given a gradient buffer before its backward');
    const accumulate = this.#gradWritten;
    this.#gradWritten = true;
    return { into, accumulate };
  }

  get gradWritten(): boolean {
    return this.#gradWritten;
  }

  /** Starts a new micro-batch: the next gradient overwrites. */
  resetGrad(): void {
    this.#gradWritten = false;
  }

  #missing(field: string, when: string): never {
    throw new DsError({
      code: 'INTERNAL',
      op: `parameter ${this.name}`,
      expected: `${field} that was ${when}`,
      actual: 'none',
      hint: 'an engine must hold the model: zero.initialize, or holdFull for inference',
    });
  }
}
