/**
 * The benches of one file of tools/bench/cuda, each proving equality first. Time is the host's between two joins of the stream
 * (of the device, for PyTorch), around batches of at least 0.1 s of launches; medians and spread of five of them.
 */
import { createRequire } from 'node:module';
import { cudaSeconds } from '../../bench/cuda-roofline.mjs';
import { measure } from '../../bench/harness.mjs';
import { currentCommit, describeMachine } from '../../bench/machine.mjs';
import { endLastingRivals } from '../../bench/process-side.mjs';
import { recordRow, tryCheck } from '../record.mjs';
import { stageArguments } from '../stage-arguments.mjs';

const SAMPLES = 5;

const { out, filter, group, tiny } = stageArguments({ group: { type: 'string' } });
const require = createRequire(import.meta.url);
require('../../typescript-hook.cjs');
const core = require('@ds/core-native');
const device = 'cuda:0';
const { benches } = await import(`../../bench/cuda/${group}.mjs`);
const chosen = (await benches({ core, require, device })).filter(({ name }) =>
  filter.every((text) => name.includes(text)),
);
const where = {
  machine: describeMachine(core.cpuFeatures().isa, core.cudaDevices().devices[0].name),
  threads: core.threads(),
  commit: currentCommit(),
  command: `bash gpu-check-bundle/run.sh --stage bench-${group}`,
};
for (const { name, make } of chosen)
  await tryCheck(out, `bench-${group}`, name, async () => {
    process.stderr.write(`bench: ${name}\n`);
    const options = { samples: tiny ? 1 : SAMPLES, leastSeconds: cudaSeconds(core, device) };
    const row = { ...(await measure(await make(), core, options)), ...where };
    recordRow(out, row);
    return `${row.ours} ${row.unit}${row.ratio === null ? `; ${row.rival_name ?? 'no rival'}` : `, ${row.ratio}x ${row.rival_name}`}`;
  });
await endLastingRivals();
process.exit();
