/** The products of a 1.3B BLOOM's training step, bf16, against cuBLASLt called bare (rivals/cublaslt.cu, compiled here). */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { outputOf } from '../../programs.mjs';
import { findNvcc } from '../nvcc.mjs';
import { rivalDevice } from '../op-bench.mjs';
import { lastingPythonRival, ProcessSide } from '../process-side.mjs';

const source = fileURLToPath(new URL('../rivals/cublaslt.cu', import.meta.url));

/** Rows (tokens) and [N, K] of each layer: 4 x 2048 tokens, C = 2048; the head on a part, as its logits are large. */
const full = {
  qkv: [8192, 6144, 2048],
  projection: [8192, 2048, 2048],
  up: [8192, 8192, 2048],
  down: [8192, 2048, 8192],
  head: [2048, 50304, 2048],
};
const tiny = { qkv: [24, 40, 16] };

/** What is multiplied, y[M,N] = a[M,K] b[K,N], and whether a and b are stored transposed. */
const products = {
  forward: (R, N, K) => ({ M: R, N, K, a: false, b: true }),
  dx: (R, N, K) => ({ M: R, N: K, K: N, a: false, b: false }),
  dweight: (R, N, K) => ({ M: N, N: K, K: R, a: true, b: false }),
};

let built;

/** Where PyTorch brought its own cuBLASLt along: its folders of headers and libraries, for a toolkit without them. */
function torchsOwn() {
  const code = 'import nvidia; print("\\n".join(nvidia.__path__))';
  const folders = outputOf(process.env.DS_BENCH_PYTHON || 'python3', ['-c', code]).split('\n');
  const found = folders.flatMap((folder) => ['cublas', 'cu13', 'cu12'].map((name) => path.join(folder, name)));
  const home = found.find((folder) => existsSync(path.join(folder, 'include/cublasLt.h')));
  if (!home) return undefined;
  const library = readdirSync(path.join(home, 'lib')).find((file) => file.startsWith('libcublasLt.so'));
  return library && [`-I${home}/include`, path.join(home, 'lib', library), '-Xlinker', `-rpath=${home}/lib`];
}

/** Compiles the rival once. Gives `{ program }` or `{ missing }`. */
function rivalProgram() {
  built ??= compileRival();
  return built;
}

function compileRival() {
  const nvcc = findNvcc();
  if (!nvcc) return { missing: 'nvcc is not installed' };
  const program = path.join(mkdtempSync(path.join(tmpdir(), 'ds-cublaslt-')), 'cublaslt');
  let said = '';
  for (const library of [['-lcublasLt'], torchsOwn()].filter(Boolean)) {
    const args = ['-O2', '-std=c++17', '-arch=native', '-o', program, source, ...library];
    const { status, stderr } = spawnSync(nvcc, args, { encoding: 'utf8' });
    if (status === 0) return { program };
    said ||= stderr.split('\n').find((line) => /error/i.test(line)) ?? stderr.slice(-300);
  }
  return { missing: `nvcc could not compile it: ${said}` };
}

/** cuBLASLt called bare; where it cannot be compiled, torch.matmul, which calls it. */
function cublasLt(core, device, product) {
  const { M, N, K, a, b } = product;
  const { program, missing } = core.cudaDevices().emulated ? { missing: 'the device is emulated' } : rivalProgram();
  if (!missing) return new ProcessSide('cuBLASLt', [program, ...[M, N, K, Number(a), Number(b)].map(String)]);
  const prepare = { op: 'product', ...product, device: rivalDevice(core, device), threads: core.threads(), inputs: {} };
  return lastingPythonRival(`torch.matmul (no bare cuBLASLt: ${missing})`, 'ops.py', { prepare });
}

/** Whole numbers of -6 to 6 from a formula; an operand holds their quarters, so that every sum of products is exact in f32. */
function quartersOf(n, seed) {
  const values = new Int8Array(n);
  for (let i = 0; i < n; i++) {
    let h = Math.imul(i + seed, 0x9e3779b1);
    h ^= h >>> 15;
    h = Math.imul(h, 0x2c1b3c6d);
    h ^= h >>> 12;
    values[i] = ((h >>> 0) % 13) - 6;
  }
  return values;
}

/** The bits of those quarters in bf16. */
function operand(n, seed) {
  const quarters = Float32Array.from({ length: 13 }, (_, i) => (i - 6) / 4);
  const bits = Uint16Array.from(new Uint32Array(quarters.buffer), (word) => word >>> 16);
  return Uint16Array.from(quartersOf(n, seed), (value) => bits[value + 6]);
}

/** Every element's bits times a number of its own, modulo 2^32: a sum, so that a GPU can take it too. */
function hashOf(values) {
  let hash = 0;
  for (let i = 0; i < values.length; i++) hash = (hash + Math.imul(values[i], Math.imul(i, 0x9e3779b1) | 1)) | 0;
  return hash >>> 0;
}

/** Our op on those operands. */
class Ours {
  name = 'ours';
  constructor(core, device, kind, product) {
    Object.assign(this, { core, device, kind, product });
  }

  start() {
    const { core, device, product } = this;
    const { M, N, K, a, b } = product;
    const filled = (shape, seed) => {
      const t = core.Tensor.empty(shape, { dtype: 'bf16', device });
      t.writeBytes(operand(t.numel, seed));
      return t;
    };
    this.a = filled(a ? [K, M] : [M, K], 1);
    this.b = filled(b ? [N, K] : [K, N], 2);
    this.y = core.Tensor.empty([M, N], { dtype: 'bf16', device });
  }

  multiply() {
    const { core, kind, a, b, y } = this;
    if (kind === 'dx') return core.linearBackwardInput(a, b, { into: y });
    if (kind === 'dweight') return core.linearBackwardWeight(a, b, { dweight: y, accumulate: false });
    return core.linear(a, b).y;
  }

  async run(iterations) {
    for (let i = 0; i < iterations; i++) this.core.scope(() => void this.multiply());
    await this.core.device(this.device).stream.join();
  }

  /** The bits of the product. */
  async result() {
    if (this.kind !== 'forward') {
      this.multiply();
      return await this.y.read();
    }
    const y = this.multiply();
    const bits = await y.read();
    y.dispose();
    return bits;
  }

  stop() {
    for (const tensor of [this.a, this.b, this.y]) tensor?.dispose();
  }
}

/** Rows of the product by plain sums, exact, rounded once to bf16. */
function plainRows(core, rows, { M, N, K, a, b }) {
  const [left, right] = [quartersOf(M * K, 1), quartersOf(N * K, 2)];
  return rows.map((row) => {
    const sums = new Float64Array(N);
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += left[a ? k * M + row : row * K + k] * right[b ? n * K + k : k * N + n];
      sums[n] = sum / 16;
    }
    return core.packNumbers('bf16', sums);
  });
}

/** Equality first: a row in the middle and the last one by plain sums, and the hash of all bits against the rival's. */
async function equal(core, ours, product, rival) {
  const got = await ours.result();
  const rows = [Math.floor(product.M / 2), product.M - 1];
  for (const [i, want] of plainRows(core, rows, product).entries()) {
    const row = rows[i];
    const at = want.findIndex((bits, n) => bits !== got[row * product.N + n]);
    if (at >= 0) throw new Error(`element [${row}, ${at}] has the bits ${got[row * product.N + at]}, not ${want[at]}`);
  }
  if (!rival) return;
  const { hash } = (await rival.outputs('.')).outputs;
  if (hash !== hashOf(got))
    throw new Error(`the bits of all elements differ from ${rival.name}'s (${hashOf(got)}, ${hash})`);
}

export function benches({ core, device }) {
  const shapes = core.cudaDevices().emulated ? tiny : full;
  return Object.entries(shapes).flatMap(([layer, [R, N, K]]) =>
    Object.entries(products).map(([kind, of]) => {
      const product = of(R, N, K);
      const name = `cuda/gemm/${layer}/${kind}`;
      const make = () => {
        const ours = new Ours(core, device, kind, product);
        const flops = 2 * product.M * product.N * product.K;
        return {
          name,
          task: `${kind} of a ${N} x ${K} layer, ${R} rows, bf16, ${device}`,
          ours,
          rival: cublasLt(core, device, product),
          amount: flops / 1e12,
          unit: 'TFLOP/s',
          roofline: { flops, tensorCores: true },
          equal: ({ rival }) => equal(core, ours, product, rival),
        };
      };
      return { name, make };
    }),
  );
}
