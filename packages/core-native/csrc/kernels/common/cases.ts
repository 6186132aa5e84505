/**
 * What a `<op>.cases.ts` holds: one list per op that is its test, its gradient check and its benchmark.
 * test/ops/ops.test.ts walks every such file; tools/bench times the cases marked `bench`.
 */
import type { DType, Tensor } from '@ds/core-native';

export type Tensors = Record<string, Tensor>;
export type Parameters = Record<string, number | boolean>;

export interface Input {
  shape: readonly number[];
  /** Default: the case's dtype. Integer inputs (`i32`, `u8`) keep theirs on every device. */
  dtype?: DType;
  /** Value of element `i`; default: normal numbers. */
  value?: (random: Random, i: number) => number;
}

export interface OpCase {
  name: string;
  dtype: DType;
  inputs: Record<string, Input>;
  parameters?: Parameters;
  /** Size of the terms that cancel in the result, where they are much larger than the result; say why. Default: its largest element. */
  termScale?: number;
  /** Timed by the benchmark; too large for the test then, unless `test` says otherwise. */
  bench?: boolean;
}

export interface OpCases {
  /** The contract's name: csrc/kernels/<family>/<op>.h */
  op: string;
  cases: readonly OpCase[];
  /** Calls the op and returns its outputs by name. */
  run(inputs: Tensors, parameters: Parameters): Tensors;
  /** Calls the backward op: `d` holds the gradients of `outputs`; returns gradients by the input's name. */
  backward?: {
    outputs: readonly string[];
    run(inputs: Tensors, outputs: Tensors, d: Tensors, parameters: Parameters): Tensors;
  };
  /** Terms in the longest sum behind one output element: float error grows with its root. Default 1. */
  sumLength?(c: OpCase): number;
  /** Least bytes that must move, and float operations, for the benchmark's roofline. */
  bytes(c: OpCase): number;
  flops(c: OpCase): number;
}

/** A small, seeded source of random numbers (mulberry32): the same on every machine. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** Uniform in [0, 1). */
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }
  integer(below: number): number {
    return Math.floor(this.uniform() * below);
  }
}
