/** "Did you mean": the known name closest to a mistyped one. */

/** Counts the edits (insert, delete, replace one character, swap two neighbours) that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = swapped ? beforePrevious[j - 2]! + 1 : Number.POSITIVE_INFINITY;
      current.push(Math.min(replace, swap, previous[j]! + 1, current[j - 1]! + 1));
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length]!;
}

/** Shorter words are parts of too many names to be a hint. */
const minContainedLength = 5;

/**
 * Gives the candidate nearest to `name`, ignoring case, or null when none is near. Near is at most a third of the name's length in edits, or one name
 * being a part of the other (`prefetch_bucket_size` for `stage3_prefetch_bucket_size`).
 */
export function nearestName(name: string, candidates: readonly string[]): string | null {
  const lower = name.toLowerCase();
  let nearest: string | null = null;
  let nearestDistance = Math.max(1, Math.floor(name.length / 3)) + 0.5;
  for (const candidate of candidates) {
    const other = candidate.toLowerCase();
    const shorter = Math.min(lower.length, other.length);
    const contained = shorter >= minContainedLength && (other.includes(lower) || lower.includes(other));
    const distance = contained ? Math.min(1, editDistance(lower, other)) : editDistance(lower, other);
    if (distance < nearestDistance) {
      nearest = candidate;
      nearestDistance = distance;
    }
  }
  return nearest;
}
