/** What a rank sends for ZeRO: weights and gradients, without the few numbers that steps agree on. */
import type { ProcessGroup } from '@ds/core-native';

export interface Sent {
  readonly elements: number;
  readonly bytes: number;
}

/** Counts what was sent between two readings. Calls count when they are queued. */
export class TrafficMeter {
  readonly #group: ProcessGroup;
  #before: Sent;

  constructor(group: ProcessGroup) {
    this.#group = group;
    this.#before = this.#total();
  }

  /** Begins anew. */
  start(): void {
    this.#before = this.#total();
  }

  /** Gives what was sent since `start`. */
  read(): Sent {
    const { elements, bytes } = this.#total();
    return { elements: elements - this.#before.elements, bytes: bytes - this.#before.bytes };
  }

  #total(): Sent {
    const { allGather, reduceScatter } = this.#group.counters().byPrimitive;
    return {
      elements: allGather.elements + reduceScatter.elements,
      bytes: allGather.bytes + reduceScatter.bytes,
    };
  }
}
