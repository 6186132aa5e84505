/** Distinct pieces of a corpus with their counts: what a BPE trainer works on instead of the text. */

/** Counts pieces. Memory grows with distinct pieces, not with text. */
export class WordTable {
  readonly #indexOf = new Map<string, number>();
  #counts = new Float64Array(1 << 16);

  /** Distinct pieces so far. */
  get size(): number {
    return this.#indexOf.size;
  }

  add(piece: string): void {
    const index = this.#indexOf.get(piece);
    if (index !== undefined) {
      this.#counts[index]!++;
      return;
    }
    const next = this.#indexOf.size;
    if (next === this.#counts.length) {
      const grown = new Float64Array(next * 2);
      grown.set(this.#counts);
      this.#counts = grown;
    }
    this.#counts[next] = 1;
    // A slice of a string keeps the whole document alive; a copy does not.
    this.#indexOf.set(Buffer.from(piece).toString(), next);
  }

  /** How often each piece came, in the order of first appearance. */
  counts(): Float64Array {
    return this.#counts.slice(0, this.size);
  }

  /** The pieces, in the order of first appearance. */
  pieces(): IterableIterator<string> {
    return this.#indexOf.keys();
  }
}
