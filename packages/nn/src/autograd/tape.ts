/**
 * The tape: what was computed, and how to walk it back.
 *
 * Recording is an explicit scope (`tape.run`), off by default, so that inference pays nothing. Nodes are recorded by the
 * functions in `functional/`, which know their own gradients; gradients of parameters are written by them straight into
 * the parameter's gradient buffer and never pass through the tape.
 */
import { DsError, keep, scope, type Tensor } from '@ds/core-native';

export interface TapeNode {
  /** For errors. */
  name: string;
  /** What it was computed from, as far as gradients flow there. */
  inputs: readonly Tensor[];
  output: Tensor;
  /** What `backward` will read; held until it ran. */
  saved: readonly Tensor[];
  /** Gives the gradient of each input from that of the output; `undefined` where `take` has consumed it already. */
  backward(dy: Tensor, tape: Tape): readonly (Tensor | undefined)[];
}

type Entry = { node: TapeNode } | { mark: () => void };

let active: Tape | undefined;

/** The tape that records now, if any. */
export function currentTape(): Tape | undefined {
  return active;
}

export class Tape implements Disposable {
  readonly #entries: Entry[] = [];
  /** One reference each. */
  readonly #gradients = new Map<Tensor, Tensor>();

  /** Records what `fn` computes. `fn` must not be asynchronous: it queues work, it does not wait for it. */
  run<T>(fn: () => T): T {
    const before = active;
    active = this;
    try {
      return fn();
    } finally {
      active = before;
    }
  }

  record(node: TapeNode): void {
    for (const tensor of node.saved) tensor.retain();
    this.#entries.push({ node });
  }

  /** Leaves a callback that the backward walk will call when it passes this place. */
  mark(callback: () => void): void {
    this.#entries.push({ mark: callback });
  }

  /**
   * Takes the gradient that has reached `tensor` so far, so that a node can add its own share in the same kernel.
   * The caller owns the reference.
   */
  take(tensor: Tensor): Tensor | undefined {
    const gradient = this.#gradients.get(tensor);
    this.#gradients.delete(tensor);
    return gradient;
  }

  /**
   * Walks back from `output`, whose gradient is `dy`, and empties the tape. Takes over the caller's reference to `dy`.
   * Without `dy`, `output` is a loss that took its own gradient in forward (`headLoss`).
   * @throws INTERNAL when a tensor got two gradients and no node knew how to add them
   */
  backward(output: Tensor, dy: Tensor = output.retain()): void {
    this.#gradients.set(output, dy);
    for (let entry = this.#entries.pop(); entry; entry = this.#entries.pop()) {
      if ('mark' in entry) entry.mark();
      else this.#step(entry.node);
    }
    for (const gradient of this.#gradients.values()) gradient.dispose();
    this.#gradients.clear();
  }

  #step(node: TapeNode): void {
    const dy = this.take(node.output);
    if (dy) {
      const gradients = scope(() => node.backward(dy, this));
      node.inputs.forEach((input, i) => {
        const gradient = gradients[i];
        if (!gradient) return;
        if (this.#gradients.has(input))
          throw new DsError({
            code: 'INTERNAL',
            op: node.name,
            expected: `a backward that takes the gradient which ${input} already has`,
            actual: 'a second gradient beside it',
            hint: 'call tape.take(input) in its backward and add it there',
          });
        this.#gradients.set(input, keep(gradient));
      });
      dy.dispose();
    }
    for (const tensor of node.saved) tensor.dispose();
  }

  /** Forgets everything recorded, without walking back. */
  [Symbol.dispose](): void {
    for (const entry of this.#entries) if ('node' in entry) for (const tensor of entry.node.saved) tensor.dispose();
    this.#entries.length = 0;
    for (const gradient of this.#gradients.values()) gradient.dispose();
    this.#gradients.clear();
  }
}
