/** The random blocks of a layout: a pure function of (seed, head), the same on every machine and every rank. */

/**
 * Draws distinct blocks for one head after another, row after row.
 *
 * The generator is mulberry32, started at a mix (Murmur3's finalizer) of both halves of the seed and the head; a sample is the
 * head of a Fisher-Yates shuffle of 0 .. below - 1.
 */
export class RandomBlocks {
  #state: number;

  constructor(seed: number, head: number) {
    this.#state = mix(mix(mix(seed >>> 0) ^ Math.floor(seed / 2 ** 32)) ^ head);
  }

  /** Gives `count` distinct whole numbers below `below`. */
  sample(count: number, below: number): number[] {
    const all = Array.from({ length: below }, (_, i) => i);
    for (let i = 0; i < count; i++) {
      const j = i + Math.floor(this.#uniform() * (below - i));
      [all[i], all[j]] = [all[j]!, all[i]!];
    }
    return all.slice(0, count);
  }

  #uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
}

function mix(x: number): number {
  let h = x >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
