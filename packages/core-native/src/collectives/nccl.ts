/** Where NVIDIA's NCCL may be, and what was found. */
import fs = require('node:fs');
import os = require('node:os');
import path = require('node:path');

import type { NativeNccl } from '../binding';
import { native } from '../loader';

type Variables = Readonly<Record<string, string | undefined>>;

const soname = 'libnccl.so.2';

/**
 * Files to try, the most particular first: `DS_NCCL_LIBRARY` alone where it is set, what the system's linker finds
 * (LD_LIBRARY_PATH), CUDA's folders, the system's, and those of Python packages (nvidia-nccl-cu12, PyTorch's).
 */
export function ncclCandidates(env: Variables = process.env): string[] {
  if (env.DS_NCCL_LIBRARY) return [fileIn(path.resolve(env.DS_NCCL_LIBRARY))];
  const machine = { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch;
  const toolkits = [env.CUDA_HOME, env.CUDA_PATH, '/usr/local/cuda'].filter((folder) => folder !== undefined);
  const system = [`/usr/lib/${machine}-linux-gnu`, '/usr/lib64', '/usr/lib', '/usr/local/lib', '/opt/nccl/lib'];
  const folders = [
    ...toolkits.flatMap((toolkit) => [path.join(toolkit, 'lib64'), path.join(toolkit, `targets/${machine}-linux/lib`)]),
    ...system,
    ...pythonFolders(env),
  ];
  const files = [...new Set(folders.map((folder) => path.join(folder, soname)))];
  return [soname, ...files.filter((file) => fs.existsSync(file))];
}

function fileIn(given: string): string {
  return fs.statSync(given, { throwIfNoEntry: false })?.isDirectory() ? path.join(given, soname) : given;
}

function pythonFolders(env: Variables): string[] {
  const roots = [env.VIRTUAL_ENV, env.CONDA_PREFIX, path.join(os.homedir(), '.local'), '/usr/local', '/usr'];
  return roots
    .filter((root) => root !== undefined)
    .map((root) => path.join(root, 'lib'))
    .flatMap((lib) => entriesOf(lib).flatMap((name) => (name.startsWith('python3') ? [path.join(lib, name)] : [])))
    .flatMap((python) => ['site-packages', 'dist-packages'].map((name) => path.join(python, name, 'nvidia/nccl/lib')));
}

function entriesOf(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}

/** Opens NCCL, unless it is open, and says what was found and what was tried in vain. */
export function findNccl(): NativeNccl {
  return native.nccl(ncclCandidates());
}
