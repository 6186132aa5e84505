/** How `ds` ends: the codes that scripts may rely on. */
import type { DsError } from '@ds/core-native';

export const exitCodes = {
  done: 0,
  failed: 1,
  /** A wrong command line or config: nothing was started. */
  refused: 2,
  /** A second Ctrl-C. After the first one a run ends in order, with 0. */
  interrupted: 130,
} as const;

export function exitCodeOf(error: unknown): number {
  if (isUsageError(error)) return exitCodes.refused;
  if (!isDsError(error)) return exitCodes.failed;
  if (error.code === 'ABORTED') return exitCodes.interrupted;
  return error.code === 'CONFIG' ? exitCodes.refused : exitCodes.failed;
}

/** Tells errors of commander's, which are about the command line. */
export function isUsageError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('commander.');
}

/** As `DsError.is`, which would load the addon: a failure to load it must be told too. */
export function isDsError(error: unknown): error is DsError {
  return typeof error === 'object' && error !== null && Symbol.for('@ds/error') in error;
}
