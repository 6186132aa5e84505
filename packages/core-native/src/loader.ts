/**
 * Finds the addon (a local build first, then the prebuilt binary of this platform), or says what to do.
 * `DS_NATIVE_PATH=/path/to/file.node` names one, such as a build with a sanitizer; then nothing else is tried.
 */
import path = require('node:path');
import load = require('node-gyp-build');

import type { Native } from './binding';
import { DsError } from './errors';

function loadNative(): Native {
  try {
    const given = process.env.DS_NATIVE_PATH;
    const native = (given ? require(path.resolve(given)) : load(path.resolve(__dirname, '..'))) as Native;
    native.initialize(DsError);
    return native;
  } catch (cause) {
    if (DsError.is(cause)) throw cause;
    throw new DsError({
      code: 'UNSUPPORTED',
      op: 'load @ds/core-native',
      expected: 'a binary for this platform',
      actual: `none for ${process.platform}-${process.arch}, Node ${process.versions.node} (${cause instanceof Error ? cause.message : cause})`,
      hint: 'Prebuilt: linux-x64 (glibc 2.34+, AVX2), linux-arm64, darwin-arm64. From a checkout: npm run build',
      cause,
    });
  }
}

/** Waits for every op before it returns, so that an error carries the stack of the call that made it. */
function synchronous(native: Native): Native {
  const wrapped: Record<string, unknown> = { ...native };
  for (const name of Object.keys(native.signatures)) {
    const op = (native as unknown as Record<string, (stream: number, ...rest: unknown[]) => void>)[name]!;
    wrapped[name] = (stream: number, ...rest: unknown[]) => {
      op(stream, ...rest);
      native.join_sync(stream);
    };
  }
  return wrapped as unknown as Native;
}

const loaded = loadNative();
if (process.env.DS_CPU_ISA) loaded.set_isa(process.env.DS_CPU_ISA);
if (process.env.DS_CUDA_LIBRARY) loaded.set_cuda_library(path.resolve(process.env.DS_CUDA_LIBRARY));
if (process.env.DS_GEMM) loaded.set_gemm(process.env.DS_GEMM);
if (process.env.DS_NUM_THREADS) loaded.set_threads(Number(process.env.DS_NUM_THREADS));

export const native: Native = process.env.DS_SYNC === '1' ? synchronous(loaded) : loaded;
