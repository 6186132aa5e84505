/** The CUDA library that the check runs on: the one that travelled along, or one compiled on the spot. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { findNvcc } from '../bench/nvcc.mjs';
import { findProgram, root, seconds } from '../programs.mjs';

const built = path.join(root, 'packages/core-native/build/Release/ds-core-cuda.so');
const folder = path.join(root, 'packages/core-native/build-gpu-check');

/** Does what every kernel needs on the device, in a process of its own. Gives what went wrong, or ''. */
export function problemWith(library) {
  const program = `
    const { Tensor, device, fill } = require('@ds/core-native');
    const x = Tensor.empty([1000], { device: device('cuda:0') });
    fill(x, 3);
    x.numbers().then((v) => { if (!v.every((y) => y === 3)) throw new Error('fill(x, 3) gave ' + v[0]); });`;
  const env = { ...process.env, DS_CUDA_LIBRARY: library };
  const { status, stderr, error } = spawnSync(process.execPath, ['-e', program], {
    cwd: root,
    env,
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (status === 0) return '';
  const said = `${error?.message ?? ''}${stderr ?? ''}`;
  return said.split('\n').find((line) => /^\w*Error\b.*: /.test(line)) ?? said.slice(-300);
}

/** Compiles ds-core-cuda.so for one architecture, such as '90', and gives its path. @throws Error with the compiler's words */
function compile(architecture, timeoutMs) {
  const nvcc = findNvcc();
  const missing = [nvcc ? '' : 'nvcc (set CUDA_HOME)', findProgram('cmake') ? '' : 'cmake'].filter(Boolean);
  if (missing.length > 0) throw new Error(`cannot be compiled here either: ${missing.join(' and ')} not found`);
  mkdirSync(folder, { recursive: true });
  const defines = {
    // Another nvcc than ours may warn of other things; that is no reason not to measure.
    DS_CUDA_WARNINGS_ARE_ERRORS: 'off',
    CMAKE_CUDA_ARCHITECTURES: `${architecture}-real`,
    CMAKE_CUDA_COMPILER: nvcc,
  };
  const configure = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`);
  const steps = [
    ['-S', path.join(root, 'packages/core-native/csrc/cuda'), '-B', folder, ...configure],
    ['--build', folder, '-j', String(os.availableParallelism())],
  ];
  const end = performance.now() + timeoutMs;
  for (const args of steps) {
    const { status, stdout, stderr, error } = spawnSync('cmake', args, {
      encoding: 'utf8',
      maxBuffer: 2 ** 26,
      timeout: Math.max(1000, Math.round(end - performance.now())),
    });
    if (status !== 0)
      throw new Error(`cmake ${args[0]} failed: ${error?.message ?? ''}${`${stdout}${stderr}`.slice(-3000)}`);
  }
  return path.join(folder, 'ds-core-cuda.so');
}

/**
 * Gives `{ library, how }`: the path of a CUDA library that works here, and a line on how it came to be. `DS_CUDA_LIBRARY` names
 * a library; then no other is tried.
 *
 * @param capability of the GPU, such as '9.0'
 * @throws Error saying why neither the library that is there nor one compiled here works
 */
export function prepareLibrary(capability, timeoutMs) {
  const given = process.env.DS_CUDA_LIBRARY;
  const library = given ? path.resolve(given) : built;
  const problem = existsSync(library) ? problemWith(library) : `${library} is not there`;
  if (!problem) return { library, how: `${library} works as it is` };
  if (given || !capability) throw new Error(problem);
  const start = performance.now();
  let compiled;
  try {
    compiled = compile(capability.replace('.', ''), timeoutMs);
  } catch (error) {
    throw new Error(`${problem}; and it ${error.message}`);
  }
  const again = problemWith(compiled);
  if (again) throw new Error(`${problem}; compiled for ${capability} on the spot: ${again}`);
  return {
    library: compiled,
    how: `compiled on the spot in ${seconds(performance.now() - start)}, because: ${problem}`,
  };
}
