/** Finds NVIDIA's compiler, for what is compiled where it runs. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { findProgram } from '../programs.mjs';

/** Gives the path of nvcc, or undefined: on PATH, then in the usual places of a toolkit. */
export function findNvcc() {
  const toolkits = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'].filter(Boolean);
  return findProgram('nvcc') ?? toolkits.map((toolkit) => path.join(toolkit, 'bin/nvcc')).find(existsSync);
}
