/** Finds and runs other programs, for the tools in this folder. */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root folder. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Gives the full path of a program on PATH, or undefined. Starts no process: setup asks this on every run. */
export function findProgram(name) {
  for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
    const candidate = path.join(folder || '.', name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not here: the next folder.
    }
  }
  return undefined;
}

/** Gives what a program prints on stdout, trimmed, or '' when it fails. */
export function outputOf(program, args, options = {}) {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8', cwd: root, ...options });
  return status === 0 ? stdout.trim() : '';
}

/** Runs a program in the terminal of this one and gives its exit status; death by a signal counts as 128 + signal. */
export function run(program, args, { env, cwd = root, stdio = 'inherit' } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio, env: { ...process.env, ...env } });
    // A terminal's Ctrl-C reaches the child too; `kill` of this process alone must reach it as well.
    const forward = (signal) => child.kill(signal);
    process.on('SIGTERM', forward);
    process.on('SIGINT', forward);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      process.off('SIGTERM', forward);
      process.off('SIGINT', forward);
      resolve(code ?? 128 + (signal === 'SIGKILL' ? 9 : signal === 'SIGINT' ? 2 : 15));
    });
  });
}

/** Runs a program quietly; on failure prints what it said. Gives its exit status. */
export function runQuietly(program, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    ...options,
    env: { ...process.env, ...options.env },
  });
  if (status !== 0) process.stderr.write(`${error ? `${error.message}\n` : ''}${stdout ?? ''}${stderr ?? ''}`);
  return status ?? 1;
}

/** Gives a path relative to the root, for messages. */
export function shown(file) {
  return path.relative(root, file) || '.';
}

export function seconds(milliseconds) {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}
