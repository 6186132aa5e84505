/** What the command tells its ranks, as JSON on their command line: the config's path, and what was found out before. */
import { DsError } from '@ds/core-native';
import type { TrainOverrides } from '@ds/zero';
import type { DataSource } from './data-source';
import type { RunRecord } from './records';

export interface Job {
  readonly config: string;
  readonly overrides: TrainOverrides;
  readonly data: DataSource;
  /** Folder of the checkpoint to go on from; null starts anew. */
  readonly resumeFrom: string | null;
  /** Milliseconds since 1970; null sets no limit. */
  readonly deadlineMs: number | null;
  /** Write checkpoint, model and metrics. A measurement of speed wants none of it. */
  readonly keep: boolean;
}

/** What a rank writes on stdout, one a line: rank 0 its records, any rank the error that ends it. */
export type RankMessage = RunRecord | { readonly type: 'error'; readonly error: ErrorFields };

/** An error on its way from a rank to the command. */
export type ErrorFields = Pick<DsError, 'code' | 'op' | 'expected' | 'actual' | 'hint'>;

/** Takes an error apart for that way. */
export function errorFields(error: unknown): ErrorFields {
  if (DsError.is(error)) {
    const { code, op, expected, actual, hint } = error;
    return { code, op, expected, actual, hint };
  }
  const actual = error instanceof Error ? error.message : String(error);
  const hint =
    'This is a fault of ours: please report it with the output of `ds doctor`. DS_DEBUG=1 shows where it was.';
  return { code: 'INTERNAL', op: 'train', expected: 'to go on', actual, hint };
}

/** Reads a rank's line; undefined for one that is no message. */
export function parseRankMessage(line: string): RankMessage | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const message = JSON.parse(line) as { type?: unknown };
    return typeof message.type === 'string' ? (message as RankMessage) : undefined;
  } catch {
    return undefined;
  }
}
