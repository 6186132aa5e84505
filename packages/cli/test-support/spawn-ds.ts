/** Runs the built `ds` as a process of its own, as scripts do. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import type { Outcome } from './ds';

const program = path.join(__dirname, '..', 'bin', 'ds.js');

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Hears every line of stdout as it comes; may send signals to the process. */
  readonly onLine?: (line: string, pid: number) => void;
  /** The same for stderr. */
  readonly onErrorLine?: (line: string, pid: number) => void;
}

export function spawnDs(
  args: readonly string[],
  { env = {}, cwd, onLine, onErrorLine }: SpawnOptions = {},
): Promise<Outcome> {
  const outcome: Outcome = { stdout: '', stderr: '', exitCode: 0 };
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, ...env },
    ...(cwd ? { cwd } : {}),
  });
  for (const [stream, hear] of [
    ['stdout', onLine],
    ['stderr', onErrorLine],
  ] as const) {
    let rest = '';
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      outcome[stream] += text;
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) hear?.(line, child.pid!);
    });
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ ...outcome, exitCode: code ?? (signal ? 128 : 0) }));
  });
}
