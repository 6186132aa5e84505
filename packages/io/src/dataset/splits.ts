/** Dividing documents into parts, as Megatron rounds. */
import { DsError } from '@ds/core-native';

/** Rounds halves to the even neighbour, as Python does. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

function refuse(expected: string, actual: string, hint: string): DsError {
  return new DsError({ code: 'CONFIG', op: 'splitDocuments', expected, actual: JSON.stringify(actual), hint });
}

/**
 * Divides `count` documents in proportion: `"969,30,1"` for train, validation and test.
 *
 * @returns four bounds; part k is [bounds[k], bounds[k + 1])
 * @throws DsError CONFIG for a list that is not one to three numbers, not all zero
 */
export function splitByWeights(split: string, count: number): [number, number, number, number] {
  const weights = split.split(/[,/]/).map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const sum = weights.reduce((a, b) => a + b, 0);
  if (
    weights.length > 3 ||
    weights.some((weight) => !(weight >= 0)) ||
    !(sum > 0) ||
    sum === Number.POSITIVE_INFINITY
  ) {
    throw refuse('one to three weights such as "969,30,1"', split, 'Give the shares of train, validation and test.');
  }
  const bounds = [0];
  for (let k = 0; k < 3; k++) bounds.push(bounds[k]! + roundHalfEven(((weights[k] ?? 0) / sum) * count));
  // Rounding may overshoot by a document or two; the original shifts all bounds, and so do we.
  const excess = bounds[3]! - count;
  return [0, bounds[1]! - excess, bounds[2]! - excess, bounds[3]! - excess];
}

/**
 * Takes a range of `count` documents by shares: `"0:0.95"`.
 *
 * @returns [begin, end)
 * @throws DsError CONFIG unless 0 <= begin <= end <= 1
 */
export function splitByRange(range: string, count: number): [number, number] {
  const shares = range.split(':').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const [begin = Number.NaN, end = Number.NaN] = shares;
  if (shares.length !== 2 || !(begin >= 0) || !(begin <= end) || !(end <= 1)) {
    throw refuse('two shares such as "0:0.95"', range, 'Both lie between 0 and 1, the smaller first.');
  }
  return [roundHalfEven(begin * count), roundHalfEven(end * count)];
}
