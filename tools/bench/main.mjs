/**
 * `npx turbo run bench -- [--filter TEXT]… [--device cuda:0] [--json FILE] [--list] [--samples N] [--no-save] [--folder DIR]`
 *
 * Runs the benches of benches/ (on a GPU those of cuda/, or DIR) whose name holds every TEXT. The table goes to stdout, progress to stderr. `--json` appends
 * one row a line to FILE; the rows also replace those of the same name in bench/results/<machine>-<date>.json.
 */
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from '../programs.mjs';
import { allBenches } from './all-benches.mjs';
import { cudaSeconds } from './cuda-roofline.mjs';
import { measure } from './harness.mjs';
import { currentCommit, describeMachine } from './machine.mjs';
import { endLastingRivals } from './process-side.mjs';
import { saveResults, table } from './report.mjs';

const require = createRequire(import.meta.url);

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    filter: { type: 'string', multiple: true, default: [] },
    list: { type: 'boolean', default: false },
    samples: { type: 'string' },
    'no-save': { type: 'boolean', default: false },
    device: { type: 'string', default: 'cpu' },
    folder: { type: 'string' },
  },
  // turbo and npm hand `--` on.
  args: process.argv.slice(2).filter((word) => word !== '--'),
});

require('../typescript-hook.cjs');
const core = require('@ds/core-native');
const { device } = values;
const onGpu = core.device(device).isCuda;
const folder = values.folder ?? path.join(root, onGpu ? 'tools/bench/cuda' : 'tools/bench/benches');
const benches = (await allBenches(folder, { core, require, device })).filter(({ name }) =>
  values.filter.every((text) => name.includes(text)),
);
if (values.list) {
  for (const { name } of benches) console.log(name);
  process.exit(0);
}
if (benches.length === 0) {
  console.error(`bench: no bench has ${values.filter.join(' and ')} in its name; --list shows all`);
  process.exit(1);
}

const isa = core.cpuFeatures().isa;
const command = `npx turbo run bench -- ${process.argv
  .slice(2)
  .filter((word) => word !== '--')
  .join(' ')}`.trim();
const gpu = onGpu
  ? core.cudaDevices().devices[core.device(device).number - core.device('cuda:0').number].name
  : undefined;
const where = { machine: describeMachine(isa, gpu), threads: core.threads(), commit: currentCommit(), command };
const rows = [];
for (const [i, bench] of benches.entries()) {
  process.stderr.write(`bench ${i + 1}/${benches.length}: ${bench.name}\n`);
  try {
    const samples = values.samples ? Number(values.samples) : undefined;
    const leastSeconds = onGpu ? cudaSeconds(core, device) : undefined;
    const row = { ...(await measure(await bench.make(), core, { samples, leastSeconds })), ...where };
    rows.push(row);
    if (values.json) appendFileSync(values.json, `${JSON.stringify(row)}\n`);
  } catch (error) {
    console.error(`bench: ${bench.name} failed: ${error.stack ?? error}`);
    process.exitCode = 1;
  }
}
await endLastingRivals();
console.log(table(rows));
if (rows.length > 0 && !values['no-save']) console.error(`bench: results in ${saveResults(rows, isa, gpu)}`);
