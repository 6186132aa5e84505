/** Candidates for the next merge, most frequent first. */

/** A pair of ids with its count when it was queued and the words where it was found since the last time. */
export interface MergeCandidate {
  readonly first: number;
  readonly second: number;
  /** Number of the pair in the trainer's table. */
  readonly pair: number;
  /** Words to look at, each once. */
  readonly words: readonly number[];
  /** Brought up to date when the candidate reaches the front. */
  count: number;
  /** When it was queued; tells two entries of one pair apart. */
  readonly order: number;
}

/** Higher count first; equal counts by lower ids, as the Rust trainer; entries of one pair oldest first. */
function comesBefore(a: MergeCandidate, b: MergeCandidate): boolean {
  if (a.count !== b.count) return a.count > b.count;
  if (a.first !== b.first) return a.first < b.first;
  if (a.second !== b.second) return a.second < b.second;
  return a.order < b.order;
}

/** Binary heap of candidates. */
export class MergeQueue {
  readonly #heap: MergeCandidate[] = [];

  push(candidate: MergeCandidate): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(candidate);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!comesBefore(candidate, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = candidate;
  }

  /** Removes and returns the front, or undefined when empty. */
  pop(): MergeCandidate | undefined {
    const heap = this.#heap;
    const front = heap[0];
    const last = heap.pop();
    if (last !== undefined && heap.length > 0) {
      let at = 0;
      for (;;) {
        let child = 2 * at + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && comesBefore(heap[child + 1]!, heap[child]!)) child++;
        if (!comesBefore(heap[child]!, last)) break;
        heap[at] = heap[child]!;
        at = child;
      }
      heap[at] = last;
    }
    return front;
  }
}
