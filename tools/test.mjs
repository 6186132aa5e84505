/**
 * `npm test`: everything that can be tested on this machine, from a fresh clone with nothing installed.
 *
 * Sets the machine up, builds, runs jest (arguments after `npm test --` go to it) and ends with `N passed, N failed`.
 */
import { build } from './build.mjs';
import { closingLine, runJest } from './jest-run.mjs';
import { seconds } from './programs.mjs';
import { setup } from './setup.mjs';

async function timed(what, work) {
  const start = Date.now();
  const result = await work();
  console.log(`${what}: ${seconds(Date.now() - start)}`);
  return result;
}

let counts = { passed: 0, failed: 1, skipped: 0 };
try {
  await timed('setup', () => setup());
  await timed('build', build);
  counts = await timed('jest', () => runJest(process.argv.slice(2)));
} catch (error) {
  console.error(`test: ${error.message}`);
}
console.log(`\n${closingLine(counts)}`);
process.exitCode = counts.failed > 0 ? 1 : 0;
