/**
 * `npx turbo run bench -- [--filter TEXT]… [--json FILE] [--list] [--samples N] [--no-save] [--folder DIR]`
 *
 * Runs the benches of benches/ (or DIR) whose name holds every TEXT. The table goes to stdout, progress to stderr. `--json` appends
 * one row a line to FILE; the rows also replace those of the same name in bench/results/<machine>-<date>.json.
 */
import { appendFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { root } from '../programs.mjs';
import { measure } from './harness.mjs';
import { currentCommit, describeMachine } from './machine.mjs';
import { saveResults, table } from './report.mjs';

const require = createRequire(import.meta.url);

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    filter: { type: 'string', multiple: true, default: [] },
    list: { type: 'boolean', default: false },
    samples: { type: 'string' },
    'no-save': { type: 'boolean', default: false },
    folder: { type: 'string', default: path.join(root, 'tools/bench/benches') },
  },
  // turbo and npm hand `--` on.
  args: process.argv.slice(2).filter((word) => word !== '--'),
});

/** Every file of the folder exports `benches(context)`: an array, each entry a bench or a function that makes one. */
async function allBenches(context) {
  const folder = path.resolve(values.folder);
  const found = [];
  for (const file of readdirSync(folder)
    .filter((name) => name.endsWith('.mjs'))
    .sort()) {
    const { benches } = await import(pathToFileURL(path.join(folder, file)).href);
    found.push(...(await benches(context)));
  }
  return found;
}

require('../typescript-hook.cjs');
const core = require('@ds/core-native');
const benches = (await allBenches({ core, require })).filter(({ name }) =>
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
const where = { machine: describeMachine(isa), threads: core.threads(), commit: currentCommit(), command };
const rows = [];
for (const [i, bench] of benches.entries()) {
  process.stderr.write(`bench ${i + 1}/${benches.length}: ${bench.name}\n`);
  try {
    const samples = values.samples ? Number(values.samples) : undefined;
    const row = { ...(await measure(await bench.make(), core, { samples })), ...where };
    rows.push(row);
    if (values.json) appendFileSync(values.json, `${JSON.stringify(row)}\n`);
  } catch (error) {
    console.error(`bench: ${bench.name} failed: ${error.stack ?? error}`);
    process.exitCode = 1;
  }
}
console.log(table(rows));
if (rows.length > 0 && !values['no-save']) console.error(`bench: results in ${saveResults(rows, isa)}`);
