/**
 * Which library makes large matrix products on a GPU, and where cuBLASLt is looked for.
 *
 * `DS_CUDA_GEMM=auto` (the default): cuBLASLt for large products where it is found, else our own kernels. `cublaslt`:
 * cuBLASLt for every product that it can make, and an error where it isn't found. `internal`: our own kernels.
 * `DS_CUBLASLT_PATH` names its file, or the folder of it; then nothing else is tried.
 */
import fs = require('node:fs');
import path = require('node:path');

import { DsError } from './errors';
import { native } from './loader';
import { pythonFolders, toolkitFolders } from './nvidia-folders';

/** In step with csrc/runtime/cuda_abi.h. */
const choices = ['auto', 'cublaslt', 'internal'];

/** The versions whose functions are those we call, the newest first. */
const fileNames = ['libcublasLt.so.13', 'libcublasLt.so.12'];

/** The file in a folder, or where it would be, so that a message can say where it was looked for. */
function inFolder(folder: string): string {
  const files = fileNames.map((name) => path.join(folder, name));
  return files.find((file) => fs.existsSync(file)) ?? files[0]!;
}

/** Paths for dlopen, in the order in which they are tried. A name without a folder is the system's to find. */
export function cublasLtPaths(env: NodeJS.ProcessEnv): string[] {
  const given = env.DS_CUBLASLT_PATH;
  if (given) {
    const absolute = path.resolve(given);
    return [fs.existsSync(absolute) && fs.statSync(absolute).isDirectory() ? inFolder(absolute) : absolute];
  }
  const folders = [...toolkitFolders(env), ...pythonFolders(env, ['cu13', 'cublas'])];
  return [...fileNames, ...folders.map(inFolder)];
}

/** The number of a choice. @throws CONFIG for a word that is none */
export function gemmChoice(word: string): number {
  const choice = choices.indexOf(word);
  if (choice >= 0) return choice;
  throw new DsError({
    code: 'CONFIG',
    op: 'DS_CUDA_GEMM',
    expected: `one of ${choices.join(', ')}`,
    actual: word,
    hint: 'leave it out for auto',
  });
}

let configured = false;

/** Tells the CUDA library what the environment asks for, once, before the first product. */
export function configureCudaGemm(): void {
  if (configured) return;
  const { env } = process;
  // The emulation's memory is the host's and its streams are its own: NVIDIA's library would know neither.
  const paths = native.cuda().emulated && !env.DS_CUBLASLT_PATH ? [] : cublasLtPaths(env);
  native.set_cuda_gemm(gemmChoice(env.DS_CUDA_GEMM || 'auto'), ...paths);
  configured = true;
}

/** What makes large products on GPUs: name, version and path, or what was tried in vain. Opens cuBLASLt. */
export function cudaGemmLibrary(): string {
  configureCudaGemm();
  return native.cuda_gemm();
}
