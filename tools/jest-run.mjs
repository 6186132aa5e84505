/** Runs jest and counts for oneself: its own closing line is not one that other programs read. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { root, run, seconds, shown } from './programs.mjs';

const SLOWEST = 8;

function readReport(file) {
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8'));
}

function printSlowest(report) {
  const timed = report.testResults
    .map(({ name, startTime, endTime }) => ({ name, took: endTime - startTime }))
    .sort((a, b) => b.took - a.took)
    .slice(0, SLOWEST);
  console.log('\nSlowest test files:');
  for (const { name, took } of timed) console.log(`${seconds(took).padStart(9)}  ${shown(name)}`);
}

/** Lists the failed tests again, after everything that jest printed. */
function printFailures(report) {
  const failed = report.testResults.flatMap((file) => {
    const titles = file.assertionResults.filter((t) => t.status === 'failed').map((t) => t.fullName);
    // A file that did not run at all has no assertions to name.
    return (titles.length === 0 && file.status === 'failed' ? ['(the file could not run)'] : titles).map(
      (title) => `${shown(file.name)}: ${title}`,
    );
  });
  if (failed.length > 0) console.log(`\nFailed:\n${failed.map((line) => `  ${line}`).join('\n')}`);
}

/**
 * Runs jest with `args`, then prints the slowest files and the failures.
 *
 * @returns counts; a file that could not run counts as one failure, and so does a run without a single test
 */
export async function runJest(args, env = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'ds-jest-'));
  const reportFile = path.join(folder, 'report.json');
  try {
    const jest = path.join(root, 'node_modules/jest/bin/jest.js');
    const status = await run(process.execPath, [jest, '--json', `--outputFile=${reportFile}`, ...args], {
      env,
      // With --json jest prints the report on stdout as well; people want what it says on stderr.
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const report = readReport(reportFile);
    if (!report) return { passed: 0, failed: 1, skipped: 0 };
    printSlowest(report);
    printFailures(report);
    const passed = report.numPassedTests;
    const failed = report.numFailedTests + report.numRuntimeErrorTestSuites;
    const skipped = report.numPendingTests + report.numTodoTests;
    if (passed + failed === 0) console.log('\nNo test ran.');
    return { passed, failed: failed || (status !== 0 || passed === 0 ? 1 : 0), skipped };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The line that continuous integration reads: alone, and last. */
export function closingLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
