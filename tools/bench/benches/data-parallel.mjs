/**
 * Training over two ranks of one thread each: what a ZeRO stage costs beside stage 0, and stage 3 against FSDP2.
 * Each sample is a job of its own: it starts its ranks, warms up, and takes the time inside.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { jobSide, launchedSide, spawnedJob } from '../job-side.mjs';
import { pythonRival } from '../process-side.mjs';

const program = fileURLToPath(new URL('../step-rank.mjs', import.meta.url));
const rivalScript = fileURLToPath(new URL('../rivals/data_parallel.py', import.meta.url));
const world = 2;
const sizes = { hiddenSize: 768, layers: 12, heads: 12, vocabSize: 50304, length: 256, batch: 4 };

function oursAt(core, stage, folder) {
  return launchedSide(core, `ZeRO stage ${stage}`, program, world, { sizes, stage, folder });
}

function fsdp2(folder) {
  const found = pythonRival('FSDP2 on gloo', 'data_parallel.py', { module: 'transformers' });
  if (found.missing) return found;
  const python = process.env.DS_BENCH_PYTHON || 'python3';
  return jobSide(found.name, async (iterations) => {
    const spec = JSON.stringify({ world, sizes, iterations, folder, mode: 'fsdp2' });
    return spawnedJob('FSDP2', python, [rivalScript, spec]);
  });
}

async function equalLosses({ ours, rival }, tolerance) {
  await ours.run(2);
  if (!rival) return;
  await rival.run(2);
  ours.said().losses.forEach((loss, i) => {
    const other = rival.said().losses[i];
    if (!(Math.abs(loss - other) <= tolerance * Math.abs(other)))
      throw new Error(`step ${i}: our loss is ${loss}, the other's ${other}`);
  });
}

export function benches({ core }) {
  const bench = (name, task, makeSides, tolerance) => ({
    name,
    make: async () => ({
      name,
      task: `${task}, BLOOM 125m fp32, 4 x 256 tokens, ${world} ranks x 1 thread`,
      ...makeSides(),
      amount: sizes.batch * sizes.length,
      unit: 'tokens/s',
      equal: (sides) => equalLosses(sides, tolerance),
    }),
  });
  const folder = path.join(mkdtempSync(path.join(tmpdir(), 'ds-parallel-')), 'model');
  return [
    ...[1, 2, 3].map((stage) =>
      bench(
        `data-parallel/stage-${stage}`,
        `ZeRO stage ${stage} beside our stage 0`,
        () => ({ ours: oursAt(core, stage), rival: oursAt(core, 0) }),
        0, // stages give the same bits
      ),
    ),
    bench(
      'data-parallel/fsdp2',
      'ZeRO stage 3 against FSDP2',
      () => ({ ours: oursAt(core, 3, folder), rival: fsdp2(folder) }),
      1e-4,
    ),
  ];
}
