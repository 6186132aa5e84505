/** Launches ranks that work through a list of trainings, and gives what rank 0 printed. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { launch } from '@ds/core-native';

export interface TrainingRun {
  name: string;
  steps: number;
  device?: string;
  config?: object;
  model?: object;
  sizes?: object;
  decayGroups?: 'all' | 'matrices';
  /** Where to save after the last step. */
  save?: { dir: string; tag: string };
  load?: { dir: string; tag?: string };
}

export interface TrainingResult {
  name: string;
  losses: number[];
  norms: number[];
  evaluation: number;
  /** Hashes of the gathered weights that ranks saw; one, if all agree. */
  weights: string[];
  modelStateBytes: number;
  elements: number;
  paddedElements: number;
  owners: Record<string, { live: number; peak: number }>;
  peak: number;
  peakAtStart: number;
  bytesSent: number;
  /** After every 100 steps: resident bytes, and the account's peak. */
  resident: number[];
  planned: { elements: number; bytes: number };
  leaked: number;
  ranks: { peak: number; modelStateBytes: number; leaked: number }[];
}

export async function launchRuns(
  world: number,
  runs: readonly TrainingRun[],
  env: Record<string, string> = {},
): Promise<TrainingResult[]> {
  const dir = mkdtempSync(path.join(tmpdir(), 'ds-runs-'));
  try {
    const list = path.join(dir, 'runs.json');
    writeFileSync(list, JSON.stringify(runs));
    const results: TrainingResult[] = [];
    await launch({
      world,
      script: path.join(__dirname, 'training.rank.mjs'),
      args: [list],
      env,
      onLine: (line) => {
        if (line.text.startsWith('{"name"')) results.push(JSON.parse(line.text) as TrainingResult);
      },
    });
    return results;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
