/** The products of a training step of BLOOM 125m (4 x 256 tokens) on our pool, against OpenBLAS with its own threads, called from C. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram } from '../../programs.mjs';
import { jobSide, spawnedJob } from '../job-side.mjs';

const source = fileURLToPath(new URL('../rivals/gemm.c', import.meta.url));
const R = 1024;
const weights = { qkv: [2304, 768], projection: [768, 768], up: [3072, 768], down: [768, 3072], head: [50304, 768] };

/** forward y = x W^T, dx = dy W, dweight = dy^T x: what is multiplied, and how C would call it. */
const products = {
  forward: ([N, K]) => ({ M: R, N, K, a: false, b: true }),
  dx: ([N, K]) => ({ M: R, N: K, K: N, a: false, b: false }),
  dweight: ([N, K]) => ({ M: N, N: K, K: R, a: true, b: false }),
};

let built;

/** Compiles the rival once; undefined without a compiler or without the threaded OpenBLAS. */
function rivalProgram() {
  if (built !== undefined) return built;
  const out = path.join(mkdtempSync(path.join(tmpdir(), 'ds-gemm-')), 'gemm');
  const folders = ['x86_64-linux-gnu', 'aarch64-linux-gnu'].flatMap((triple) => [
    `-I/usr/include/${triple}/openblas-pthread`,
    `-L/usr/lib/${triple}/openblas-pthread`,
    `-Wl,-rpath,/usr/lib/${triple}/openblas-pthread`,
  ]);
  const done = findProgram('cc') && spawnSync('cc', ['-O3', '-o', out, source, ...folders, '-lopenblas']).status === 0;
  built = done ? out : '';
  return built;
}

function library({ M, N, K, a, b }, threads) {
  const program = rivalProgram();
  if (!program) return { name: 'OpenBLAS', missing: 'libopenblas-pthread-dev or cc is not installed' };
  const args = [M, N, K, Number(a), Number(b)].map(String);
  return jobSide('OpenBLAS from C', (iterations) =>
    spawnedJob('OpenBLAS', program, [...args, String(iterations)], { OPENBLAS_NUM_THREADS: String(threads) }),
  );
}

/** Our op on the operands that the rival's program makes. */
function ours(core, kind, { M, N, K, a, b }) {
  let tensors;
  const filled = (shape, step) => {
    const t = core.Tensor.empty(shape);
    t.write(Float32Array.from({ length: t.numel }, (_, i) => (((i * step) % 13) - 6) / 4));
    return t;
  };
  const call = () => {
    const { x, y, into } = tensors;
    if (kind === 'dx') core.linearBackwardInput(x, y, { into });
    else if (kind === 'dweight') core.linearBackwardWeight(x, y, { dweight: into, accumulate: false });
    else core.linear(x, y).y.dispose();
  };
  return {
    name: 'ours',
    async start() {
      const [x, y] = [filled(a ? [K, M] : [M, K], 7), filled(b ? [N, K] : [K, N], 5)];
      tensors = { x, y, into: core.Tensor.empty([M, N]) };
    },
    async run(iterations) {
      for (let i = 0; i < iterations; i++) call();
      await core.device('cpu').stream.join();
    },
    async result() {
      const forward = kind === 'forward' && core.linear(tensors.x, tensors.y).y;
      if (!forward) call();
      const values = await (forward || tensors.into).read();
      if (forward) forward.dispose();
      return [values[0], values[values.length - 1], values.reduce((sum, v) => sum + v, 0)];
    },
    async stop() {
      for (const tensor of Object.values(tensors ?? {})) tensor.dispose();
    },
  };
}

export function benches({ core }) {
  const threads = core.threads();
  return Object.entries(weights).flatMap(([layer, shape]) =>
    Object.entries(products).map(([kind, of]) => {
      const product = of(shape);
      const name = `gemm/${layer}/${kind}`;
      return {
        name,
        make: async () => {
          const side = ours(core, kind, product);
          return {
            name,
            task: `${kind} of a ${shape.join(' x ')} layer, ${R} rows, f32, ${threads} threads`,
            ours: side,
            rival: library(product, threads),
            amount: (2 * product.M * product.N * product.K) / 1e9,
            unit: 'GFLOP/s',
            roofline: { flops: 2 * product.M * product.N * product.K },
            async equal({ rival }) {
              const got = await side.result();
              if (!rival) return;
              await rival.run(1);
              const want = rival.said().result;
              if (got.some((value, i) => Math.abs(value - want[i]) > 1e-3))
                throw new Error(`our result is ${got}, the rival's ${want}`);
            },
          };
        },
      };
    }),
  );
}
