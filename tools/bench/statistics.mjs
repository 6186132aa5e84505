/** The few statistics that a benchmark reports. */

/** Gives the value below which the share `q` of the samples lies, between neighbours by proportion. */
export function quantile(samples, q) {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

export function median(samples) {
  return quantile(samples, 0.5);
}

/** Rounds to four digits: more would claim a precision that no timing has. */
export function digits(value) {
  return value === null || value === undefined ? null : Number(value.toPrecision(4));
}
