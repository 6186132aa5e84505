/** Ends work whose signal was aborted. */
import { DsError } from '@ds/core-native';

/** @throws ABORTED, with the signal's reason as the cause */
export function throwIfAborted(op: string, signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new DsError({ code: 'ABORTED', op, expected: 'to finish', actual: 'an abort', cause: signal.reason });
}
