/** Runs one of the programs in `ranks/` on every rank of a job, and gives what each reported. */
import path from 'node:path';
import { type LaunchOptions, launch } from '@ds/core-native';

export interface ReportedError {
  code: string;
  op: string;
  expected: string;
  actual: string;
  message: string;
}

export interface Report<Value> {
  value?: Value;
  error?: ReportedError;
}

export const rankProgram = (name: string): string => path.join(__dirname, 'ranks', `${name}.cjs`);

/** @returns the reports, by rank */
export async function runRanks<Value>(
  name: string,
  world: number,
  args: object = {},
  options: Partial<LaunchOptions> = {},
): Promise<Report<Value>[]> {
  const reports: Report<Value>[] = [];
  const errors: string[] = [];
  await launch({
    world,
    script: rankProgram(name),
    args: [JSON.stringify(args)],
    threadsPerRank: 1,
    timeoutMs: 120_000,
    forwardSignals: false,
    ...options,
    onLine: (line) => {
      if (line.stream === 'stdout') reports[line.rank] = JSON.parse(line.text);
      else errors.push(`[${line.rank}] ${line.text}`);
      options.onLine?.(line);
    },
  });
  if (errors.length > 0) throw new Error(`ranks wrote to stderr:\n${errors.join('\n')}`);
  return reports;
}
