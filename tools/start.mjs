/**
 * `npm start`: from a fresh clone to a trained model that writes. Sets the machine up, builds, and runs `ds quickstart` with
 * the arguments behind `npm start --`.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { build } from './build.mjs';
import { root } from './programs.mjs';
import { setup } from './setup.mjs';

/** Runs `ds` in this terminal and gives its exit code. */
function runDs(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(root, 'packages/cli/bin/ds.js'), ...args], { stdio: 'inherit' });
    // `ds` ends in order, so this process waits. It takes a Ctrl-C that comes from the terminal and from here for one.
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? (signal === 'SIGKILL' ? 137 : 1)));
  });
}

// Who wants to train need not wait for what only tests use.
process.env.DS_CUDA_EMULATION ??= 'as before';
try {
  await setup();
  await build();
  process.exitCode = await runDs(['quickstart', ...process.argv.slice(2)]);
} catch (error) {
  console.error(`start: ${error.message}`);
  process.exitCode = 1;
}
