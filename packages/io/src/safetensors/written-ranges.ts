/** Which bytes of a tensor have been written: sorted, disjoint, merged where they touch. */

export class WrittenRanges {
  /** begin, end, begin, end, … */
  readonly #edges: number[] = [];
  #total = 0;

  /** Bytes written so far. */
  get total(): number {
    return this.#total;
  }

  /** Adds [begin, end); returns false, changing nothing, if a part of it is there already. */
  add(begin: number, end: number): boolean {
    if (begin >= end) return true;
    const edges = this.#edges;
    // First range that ends at or after `begin`. Pieces usually come in order, so search from the back.
    let at = edges.length;
    while (at > 0 && edges[at - 1]! >= begin) at -= 2;
    const touchesLeft = at < edges.length && edges[at + 1] === begin;
    const next = touchesLeft ? at + 2 : at;
    if (next < edges.length && edges[next]! < end) return false;
    const touchesRight = next < edges.length && edges[next] === end;
    if (touchesLeft && touchesRight) edges.splice(at + 1, 2);
    else if (touchesLeft) edges[at + 1] = end;
    else if (touchesRight) edges[next] = begin;
    else edges.splice(at, 0, begin, end);
    this.#total += end - begin;
    return true;
  }
}
