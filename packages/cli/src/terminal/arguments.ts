/** Reads numbers from the command line. */
import { InvalidArgumentError } from 'commander';

/** Reads a whole number of 0 or more; 7.5e9 and 10_000 are whole, too. */
export function parseCount(text: string): number {
  const value = Number(text.replaceAll('_', ''));
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new InvalidArgumentError('Expected a whole number.');
}

/** Reads a number above 0. */
export function parsePositive(text: string): number {
  const value = Number(text.replaceAll('_', ''));
  if (text.trim() !== '' && Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError('Expected a number above 0.');
}
