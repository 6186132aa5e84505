/**
 * Builds the addon of @ds/core-native: node tools/native/build.mjs [--out build] [--sanitize address,undefined] [--blas auto] [--cuda auto]
 *
 * cmake-js does the work. What it lacks: it never configures an existing folder again, so a changed option would be
 * ignored in silence; here the options are kept beside the build and compared.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findProgram, outputOf, root, run } from '../programs.mjs';
import { openblasIsThere } from '../setup.mjs';

const packageFolder = path.join(root, 'packages/core-native');

/** Ninja where there is one; else the generator that needs nothing more than make. */
export function generator() {
  return findProgram('ninja') ? 'Ninja' : 'Unix Makefiles';
}

function cmakeJs(out, options, command) {
  const cli = createRequire(path.join(packageFolder, 'package.json')).resolve('cmake-js/bin/cmake-js');
  const defines = Object.entries(options.defines).map(([name, value]) => `--CD${name}=${value}`);
  const args = [cli, command, '-d', packageFolder, '-O', out, '-G', options.generator, '-l', 'warn', ...defines];
  return run(process.execPath, args, { cwd: packageFolder });
}

/** What CMake looks for and remembers not to have found: once it is there, it must look again. */
function surroundings() {
  const toolkits = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'].filter(Boolean);
  const inToolkit = (file) => toolkits.some((folder) => existsSync(path.join(folder, file)));
  return {
    openblas: openblasIsThere(),
    nvcc: Boolean(findProgram('nvcc')) || inToolkit('bin/nvcc'),
    cudaHeaders: inToolkit('include/cuda_bf16.h') || existsSync('/usr/include/cuda_bf16.h'),
    gpu: findProgram('nvidia-smi') ? outputOf('nvidia-smi', ['-L']) !== '' : false,
  };
}

/**
 * Builds into `packages/core-native/<out>` and gives the path of the addon.
 *
 * @param cuda 'on' builds ds-core-cuda.so without a GPU too, 'off' never, 'auto' where nvcc and a GPU are
 * @param emulation 'on' builds ds-core-cuda-emulated.so, which tests need, 'off' does not, 'as before' is off at first
 * @param sanitize value for -fsanitize, '' for none; give it an `out` of its own
 * @throws Error when the compiler says no; it has printed why
 */
export async function buildNative({
  out = 'build',
  sanitize = '',
  blas = process.env.DS_BLAS || 'auto',
  cuda = process.env.DS_CUDA || 'auto',
  emulation = process.env.DS_CUDA_EMULATION || 'on',
} = {}) {
  const folder = path.resolve(packageFolder, out);
  const stamp = path.join(folder, 'ds-options.json');
  const configured = existsSync(stamp) ? readFileSync(stamp, 'utf8') : undefined;
  const before = configured && JSON.parse(configured);
  const options = {
    generator: generator(),
    defines: {
      DS_BLAS: blas,
      DS_SANITIZE: sanitize,
      DS_CUDA: cuda,
      DS_CUDA_EMULATION: emulation === 'as before' ? (before?.defines.DS_CUDA_EMULATION ?? 'off') : emulation,
      DS_CUDA_LAUNCHER: `${process.execPath};${fileURLToPath(new URL('ptxas-log.mjs', import.meta.url))}`,
    },
  };
  const wanted = JSON.stringify({ ...options, ...surroundings() });
  if (configured !== wanted) {
    // A folder that another generator configured is refused by CMake: start it anew.
    if (before && before.generator !== options.generator) rmSync(folder, { recursive: true });
    if ((await cmakeJs(folder, options, 'configure')) !== 0)
      throw new Error('the native build could not be configured');
    mkdirSync(folder, { recursive: true });
    writeFileSync(stamp, wanted);
  }
  if ((await cmakeJs(folder, options, 'build')) !== 0) throw new Error('the native build failed');
  return path.join(folder, 'Release/ds-core-native.node');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      out: { type: 'string' },
      sanitize: { type: 'string' },
      blas: { type: 'string' },
      cuda: { type: 'string' },
    },
  });
  try {
    await buildNative(values);
  } catch (error) {
    console.error(`build: ${error.message}`);
    process.exitCode = 1;
  }
}
