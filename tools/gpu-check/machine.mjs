/** The machine that a check runs on: GPU, driver, toolkit, PyTorch. */
import { findNvcc } from '../bench/nvcc.mjs';
import { findProgram, outputOf } from '../programs.mjs';

const TIMEOUT_MS = 30_000;

function said(program, args) {
  return program ? outputOf(program, args, { timeout: TIMEOUT_MS }) : '';
}

function gpu() {
  const fields = ['name', 'compute_cap', 'driver_version', 'memory.total', 'clocks.max.sm', 'power.limit'];
  const line = said(findProgram('nvidia-smi'), [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader']).split(
    '\n',
  )[0];
  if (!line) return { name: 'no GPU', capability: '', driver: '' };
  const [name, capability, driver, memory, clock, power] = line.split(',').map((field) => field.trim());
  return { name, capability, driver, memory, clock, power };
}

/** Gives `{ gpu, versions }`: what nvidia-smi says of the first GPU, and the versions of all that takes part; '' where it is missing. */
export function readMachine() {
  const python = process.env.DS_BENCH_PYTHON || 'python3';
  const torch = 'import torch; print(torch.__version__, "CUDA", torch.version.cuda)';
  const release = (text) =>
    /release ([\d.]+)|[Vv]ersion ([\d.]+)/.exec(text)?.slice(1).find(Boolean) ?? text.split('\n')[0];
  const found = gpu();
  return {
    gpu: found,
    versions: {
      node: process.versions.node,
      driver: found.driver,
      nvcc: release(said(findNvcc(), ['--version'])),
      cmake: release(said(findProgram('cmake'), ['--version'])),
      'compute-sanitizer': release(said(findProgram('compute-sanitizer'), ['--version'])),
      torch: said(python, ['-c', torch]),
    },
  };
}
