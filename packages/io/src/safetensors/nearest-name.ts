/** Suggestions for mistyped names. */

/** Names compared at most, so that a suggestion never costs more than the error it explains. */
const MAX_COMPARED = 2000;

/** Returns a remedy that suggests the name most like `wanted`, or lists the first ones if none is close. */
export function nearestName(wanted: string, names: readonly string[]): string {
  if (names.length === 0) return 'The file holds no tensor at all.';
  let best = '';
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const name of names.slice(0, MAX_COMPARED)) {
    const distance = editDistance(wanted.slice(0, 256), name.slice(0, 256));
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  if (bestDistance <= Math.max(2, wanted.length / 2)) return `Did you mean ${JSON.stringify(best)}?`;
  return `It holds ${names.slice(0, 5).join(', ')}${names.length > 5 ? ', …' : ''}.`;
}

/** Counts the insertions, deletions and substitutions between two strings. Source: Levenshtein 1966. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, substitution));
    }
    previous = row;
  }
  return previous[b.length]!;
}
