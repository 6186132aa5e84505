/**
 * The GPU check: node tools/gpu-check/main.mjs [--out DIR] [--budget SECONDS] [--stage NAME]… [--filter TEXT] [--tiny] [--list]
 *
 * Runs the stages below one after the other, each in a process of its own and within its time and that of all (--budget), and
 * writes table.md, rows.json and log.txt into DIR after each, so that a run which is cut off leaves what it found. A stage that
 * does not fit any more, or is cut, counts as skipped. Ends with 0 where everything passed, 1 where something failed, 3 where
 * nothing failed and something was skipped. run.sh starts it on a machine that has nothing of ours.
 */
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { prepareLibrary } from './library.mjs';
import { readMachine } from './machine.mjs';
import { readChecks, recordCheck } from './record.mjs';
import { writeReport } from './report.mjs';

/** `seconds` is the most that a stage may take; less than `least` left, it is not begun. Right before fast. */
const stages = [
  { name: 'native', seconds: 60, least: 10 },
  { name: 'cases', seconds: 150, least: 20 },
  { name: 'bloom', seconds: 60, least: 10 },
  { name: 'sanitizer', seconds: 75, least: 20 },
  { name: 'bench-adamw', seconds: 45, least: 15 },
  { name: 'bench-gemm', seconds: 90, least: 20 },
  { name: 'bench-attention', seconds: 80, least: 15 },
  { name: 'bench-bloom', seconds: 90, least: 40 },
  { name: 'bench-bandwidth', seconds: 45, least: 15 },
  { name: 'bench-sparse', seconds: 60, least: 10 },
];
const COMPILE_SECONDS = 240;

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'gpu-check-results' },
    budget: { type: 'string', default: '540' },
    stage: { type: 'string', multiple: true, default: [] },
    filter: { type: 'string', multiple: true, default: [] },
    tiny: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
});
const unknown = values.stage.filter((name) => !stages.some((stage) => stage.name === name));
if (values.list || unknown.length > 0) {
  if (unknown.length > 0) console.error(`gpu-check: no stage is called ${unknown.join(', ')}`);
  console.log(stages.map(({ name, seconds }) => `${name} (at most ${seconds} s)`).join('\n'));
  process.exit(unknown.length > 0 ? 2 : 0);
}

if (!(Number(values.budget) > 0)) {
  console.error(`gpu-check: --budget wants seconds, got ${values.budget}`);
  process.exit(2);
}

const start = performance.now();
const elapsed = () => (performance.now() - start) / 1000;
const out = path.resolve(values.out);
mkdirSync(out, { recursive: true });
// What an older run left would be counted as this one's.
for (const file of ['checks.jsonl', 'rows.jsonl', 'rows.json', 'table.md'])
  rmSync(path.join(out, file), { force: true });
const log = createWriteStream(path.join(out, 'log.txt'));

function say(text) {
  console.error(text);
  log.write(`${text}\n`);
}

/** Runs a stage's program; ends it with all its children when its time is over. Gives how it ended. */
function runStage({ name }, seconds, library) {
  const [program, group] = name.split(/-(.*)/);
  const args = [fileURLToPath(new URL(`stages/${program}.mjs`, import.meta.url)), '--out', out];
  if (group) args.push('--group', group);
  if (values.tiny) args.push('--tiny');
  for (const text of values.filter) args.push('--filter', text);
  // A group of processes of its own, which can be ended as one.
  const child = spawn(process.execPath, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DS_CUDA_LIBRARY: library },
  });
  let last = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => {
      log.write(text);
      last = `${last}${text}`.slice(-1500);
    });
  let cut = false;
  const timer = setTimeout(() => {
    cut = true;
    process.kill(-child.pid, 'SIGKILL');
  }, seconds * 1000);
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (cut) recordCheck(out, name, 'the rest of the stage', 'skipped', `cut off after ${seconds.toFixed(0)} s`);
      else if (code !== 0)
        recordCheck(out, name, 'the stage', 'failed', `ended by ${signal ?? `status ${code}`}: ${last.trim()}`);
      resolve(cut ? 'CUT OFF' : code === 0 ? 'done' : 'BROKE OFF');
    });
  });
}

const machine = readMachine();
const chosen = stages.filter(({ name }) => values.stage.length === 0 || values.stage.includes(name));
const reports = chosen.map(({ name }) => ({ name }));
const report = (library) => writeReport(out, { machine, library, stages: reports, seconds: elapsed() });
say(`gpu-check: ${machine.gpu.name}; ${JSON.stringify(machine.versions)}`);

let library;
try {
  library = prepareLibrary(machine.gpu.capability, COMPILE_SECONDS * 1000);
} catch (error) {
  recordCheck(out, 'library', 'a CUDA library that works here', 'failed', error.message);
  console.log(report('none'));
  say(`gpu-check: no CUDA library works here: ${error.message}`);
  process.exit(1);
}
say(`gpu-check: CUDA library ${library.how}`);
for (const [i, stage] of chosen.entries()) {
  const left = Number(values.budget) - elapsed();
  const begun = elapsed();
  if (left < stage.least) {
    recordCheck(
      out,
      stage.name,
      'the stage',
      'skipped',
      `${left.toFixed(0)} s of ${values.budget} s were left, it wants ${stage.least}`,
    );
    reports[i].end = 'SKIPPED: no time left';
  } else {
    say(`gpu-check: ${stage.name}, ${left.toFixed(0)} s left`);
    reports[i].end = await runStage(stage, Math.min(stage.seconds, left), library.library);
    reports[i].seconds = elapsed() - begun;
  }
  report(library.how);
}
console.log(report(library.how));
const ended = new Set(readChecks(out).map(({ outcome }) => outcome));
say(`gpu-check: ${elapsed().toFixed(0)} s; ${path.join(out, 'table.md')}`);
process.exitCode = ended.has('failed') || ended.has('no kernel') ? 1 : ended.has('skipped') ? 3 : 0;
log.end();
