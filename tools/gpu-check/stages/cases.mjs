/**
 * Every op's cases on `cuda:0` against the specification, and those of benchmark size against the CPU's vector kernels.
 *
 * Ops run in processes of their own, several at a time: the specification's plain loops take the time, and a kernel that
 * breaks its device for the rest of a process must not take other ops along. `--op` is one such process. `--small` runs a few
 * small cases of every op in this one, for compute-sanitizer.
 */
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expectEqual, makeInputs, OpSide } from '../../bench/op-side.mjs';
import { root } from '../../programs.mjs';
import { recordCheck, tryCheck } from '../record.mjs';
import { stageArguments } from '../stage-arguments.mjs';

const SMALL = { cases: 4, elements: 5000 };
const MOST_PROCESSES = 6;

const { out, filter, op, small, tiny } = stageArguments({ op: { type: 'string' }, small: { type: 'boolean' } });
const require = createRequire(import.meta.url);
require('../../typescript-hook.cjs');
const specs = require(path.join(root, 'test/ops/specs.ts')).allSpecs();

/** The case against `ref`, by the rule of test/ops. */
async function againstSpecification(spec, c) {
  const { expectSpecification, makeReference } = require(path.join(root, 'test/ops/compare.ts'));
  await expectSpecification(spec, c, 'cuda:0', await makeReference(spec, c));
}

/** A case that is too large for `ref` against `cpu`, which test/ops compares with `ref` at other sizes. */
async function againstCpu(spec, c) {
  const core = require('@ds/core-native');
  const { Random } = require(path.join(root, 'packages/core-native/csrc/kernels/common/cases.ts'));
  const packed = await makeInputs(core, Random, c);
  const results = {};
  for (const device of ['cuda:0', 'cpu']) {
    const side = new OpSide(core, spec, c, packed, { backward: spec.backward !== undefined, device });
    await side.start();
    results[device] = await side.results();
    await side.stop();
  }
  const terms = spec.sumLength?.(c) ?? 1;
  for (const [name, { values }] of Object.entries(results.cpu))
    expectEqual(name, results['cuda:0'][name], values, { terms, loose: true });
}

async function runCases(stage, spec, cases) {
  for (const c of cases) {
    const check = () => (c.bench ? againstCpu(spec, c) : againstSpecification(spec, c));
    await tryCheck(out, stage, `${spec.op} ${c.name}${c.bench ? ' (bench)' : ''}`, check);
  }
}

function smallOnes({ cases }) {
  const elements = (c) => Object.values(c.inputs).reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
  return cases.filter((c) => !c.bench && elements(c) > 1 && elements(c) <= SMALL.elements).slice(-SMALL.cases);
}

/** Runs one op's cases in a process of its own; one that dies is a failure. */
function runProcess(spec) {
  const args = [fileURLToPath(import.meta.url), '--out', out, '--op', spec.op, ...(tiny ? ['--tiny'] : [])];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text) => {
    said = `${said}${text}`.slice(-2000);
  });
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      if (said) process.stderr.write(said);
      if (code !== 0)
        recordCheck(
          out,
          'cases',
          spec.op,
          'failed',
          `its process ended by ${signal ?? `status ${code}`}: ${said.trim()}`,
        );
      resolve();
    });
  });
}

if (op) {
  const spec = specs.find((each) => each.op === op);
  if (!spec) throw new Error(`no cases are of an op ${op}: ${specs.map((each) => each.op).join(', ')}`);
  // On an emulated device a benchmark's size would take minutes.
  await runCases(
    'cases',
    spec,
    spec.cases.filter((c) => !(tiny && c.bench)),
  );
} else if (small) {
  for (const spec of specs) await runCases('sanitizer', spec, smallOnes(spec));
} else {
  const waiting = specs.filter((spec) => filter.every((text) => spec.op.includes(text)));
  const next = async () => {
    for (let spec = waiting.shift(); spec; spec = waiting.shift()) await runProcess(spec);
  };
  const processes = Math.max(1, Math.min(MOST_PROCESSES, Math.floor(os.availableParallelism() / 2)));
  await Promise.all(Array.from({ length: processes }, next));
}
