/**
 * Collectives of two ranks on one host against gloo and OpenMPI: calls one after the other on the same buffers, as buckets
 * of gradients come. Each sample is a job of its own, which starts its ranks, warms up, and takes the time inside.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram } from '../../programs.mjs';
import { jobSide, launchedSide, spawnedJob } from '../job-side.mjs';
import { pythonRival } from '../process-side.mjs';

const program = fileURLToPath(new URL('../collective-rank.mjs', import.meta.url));
const rivals = fileURLToPath(new URL('../rivals/', import.meta.url));
const world = 2;
const sizesMB = [1, 16, 256];

/**
 * Bytes that all ranks together must read and write when each can read the other's memory, in buffers: all-gather in place
 * copies half a buffer a rank (2 x 1/2 each); reduce-scatter reads two halves and writes one (2 x 3/2); all-reduce is both.
 */
const traffic = { all_gather: 2, reduce_scatter: 3, all_reduce: 5 };

function gloo(spec) {
  const found = pythonRival('gloo', 'collectives.py');
  if (found.missing) return found;
  const python = process.env.DS_BENCH_PYTHON || 'python3';
  return jobSide(found.name, (iterations) =>
    spawnedJob(found.name, python, [
      path.join(rivals, 'collectives.py'),
      JSON.stringify({ ...spec, world, iterations }),
    ]),
  );
}

let built;

/** Compiles the program for OpenMPI once, where its compiler is. */
function mpiProgram() {
  if (built) return built;
  if (!findProgram('mpicc') || !findProgram('mpirun')) return undefined;
  const out = path.join(mkdtempSync(path.join(tmpdir(), 'ds-mpi-')), 'collectives');
  const { status, stderr } = spawnSync('mpicc', ['-O3', '-o', out, path.join(rivals, 'collectives.c')], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`mpicc failed\n${stderr}`);
  built = out;
  return built;
}

function mpi(spec) {
  const out = mpiProgram();
  if (!out) return { name: 'OpenMPI', missing: 'mpicc and mpirun are not installed' };
  const { primitive, bytes } = spec;
  return jobSide('OpenMPI', (iterations) =>
    spawnedJob('OpenMPI', 'mpirun', [
      ...['-n', String(world), '--oversubscribe', '--allow-run-as-root', '--bind-to', 'none'],
      ...[out, primitive, String(bytes), String(iterations)],
    ]),
  );
}

/** Every side says some elements of the result, and the sum of all: small whole numbers, exact in any order. */
async function equalResults({ ours: side, rival }) {
  await side.run(1);
  if (!rival) return;
  await rival.run(1);
  const [a, b] = [JSON.stringify(side.said().result), JSON.stringify(rival.said().result)];
  if (a !== b) throw new Error(`our result is ${a}, the rival's ${b}`);
}

export function benches({ core }) {
  const rows = [];
  for (const primitive of Object.keys(traffic))
    for (const megabytes of sizesMB)
      for (const [rivalName, makeRival] of Object.entries({ gloo, OpenMPI: mpi })) {
        const bytes = megabytes * 2 ** 20;
        const name = `collective/${primitive}/${megabytes} MB/vs ${rivalName}`;
        rows.push({
          name,
          make: async () => ({
            name,
            task: `${primitive} of ${megabytes} MB f32${primitive === 'reduce_scatter' ? '' : ' in place'}, ${world} ranks x 1 thread`,
            ours: launchedSide(core, 'ours', program, world, { primitive, bytes }),
            rival: makeRival({ primitive, bytes }),
            roofline: { bytes: traffic[primitive] * bytes, limits: ['memcpy'], footprintBytes: world * bytes },
            equal: equalResults,
          }),
        });
      }
  return rows;
}
