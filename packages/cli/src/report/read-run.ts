/** Reads the metrics.jsonl of a run into what its report shows. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError } from '@ds/core-native';
import type {
  EndRecord,
  RunRecord,
  SampleRecord,
  StartRecord,
  StepRecord,
  TimelineRecord,
  ValidationRecord,
} from '../train/records';

export const metricsFile = 'metrics.jsonl';

export interface Run {
  readonly start: StartRecord;
  readonly steps: readonly StepRecord[];
  readonly validations: readonly ValidationRecord[];
  /** One a rank, in their order. */
  readonly timelines: readonly TimelineRecord[];
  readonly samples: readonly SampleRecord[];
  readonly end: EndRecord | undefined;
}

/**
 * Reads a run. Where a resumed run went over steps again, the later line of a step counts.
 * @throws IO, FORMAT naming the line
 */
export function readRun(folder: string): Run {
  const file = path.join(folder, metricsFile);
  const lines = readText(file).split('\n');
  // What follows the last newline is empty, or a line that a crash cut off.
  lines.pop();
  const records = lines.map((line, i) => parseLine(line, `${file}:${i + 1}`));
  const start = records.findLast((record) => record.type === 'start');
  if (!start)
    throw new DsError({
      code: 'FORMAT',
      op: file,
      expected: 'a line of type "start"',
      actual: `none among ${records.length}`,
      hint: 'Was it written by `ds train`?',
    });
  const ofType = <T extends RunRecord['type']>(type: T) =>
    records.filter((record): record is Extract<RunRecord, { type: T }> => record.type === type);
  return {
    start,
    steps: lastOfEach(ofType('step'), ({ step }) => step),
    validations: lastOfEach(ofType('validation'), ({ step }) => step),
    timelines: lastOfEach(ofType('timeline'), ({ rank }) => rank).filter(({ rank }) => rank < start.world),
    samples: lastOfEach(ofType('sample'), ({ prompt }) => prompt),
    end: ofType('end').at(-1),
  };
}

function readText(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (cause) {
    throw new DsError({
      code: 'IO',
      op: 'report',
      expected: `the metrics of a run in ${file}`,
      actual: (cause as NodeJS.ErrnoException).code ?? String(cause),
      hint: 'Name the output folder of a `ds train` or `ds quickstart`.',
      cause,
    });
  }
}

function parseLine(line: string, where: string): RunRecord {
  try {
    return JSON.parse(line) as RunRecord;
  } catch (cause) {
    throw new DsError({
      code: 'FORMAT',
      op: where,
      expected: 'a JSON object',
      actual: line.slice(0, 60),
      hint: 'Remove the line; the others are of use without it.',
      cause,
    });
  }
}

function lastOfEach<T>(items: readonly T[], key: (item: T) => number | string): T[] {
  const byKey = new Map<number | string, T>();
  for (const item of items) {
    byKey.delete(key(item));
    byKey.set(key(item), item);
  }
  const entries = [...byKey];
  return entries
    .sort(([a], [b]) => (typeof a === 'number' && typeof b === 'number' ? a - b : 0))
    .map(([, item]) => item);
}
