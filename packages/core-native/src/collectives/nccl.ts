/** Where NVIDIA's NCCL may be, and what was found. */
import fs = require('node:fs');
import path = require('node:path');

import type { NativeNccl } from '../binding';
import { native } from '../loader';
import { pythonFolders, toolkitFolders } from '../nvidia-folders';

const fileName = 'libnccl.so.2';

/**
 * Paths for dlopen, in the order in which they are tried: `DS_NCCL_LIBRARY`, a file or its folder, alone where it is set;
 * else what the system finds by name, CUDA's folders, the system's, and those of Python packages (nvidia-nccl-cu12).
 */
export function ncclPaths(env: NodeJS.ProcessEnv): string[] {
  const given = env.DS_NCCL_LIBRARY;
  if (given) {
    const absolute = path.resolve(given);
    return [fs.statSync(absolute, { throwIfNoEntry: false })?.isDirectory() ? path.join(absolute, fileName) : absolute];
  }
  const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const system = [`/usr/lib/${machine}-linux-gnu`, '/usr/lib64', '/usr/local/lib', '/opt/nccl/lib'];
  const folders = [...toolkitFolders(env), ...system, ...pythonFolders(env, ['nccl'])];
  return [fileName, ...folders.map((folder) => path.join(folder, fileName)).filter((file) => fs.existsSync(file))];
}

/** Opens NCCL, unless it is open, and says what was found and what was tried in vain. */
export function findNccl(): NativeNccl {
  const { env } = process;
  // The emulation's streams are its own: NVIDIA's library would not know them.
  return native.nccl(native.cuda().emulated && !env.DS_NCCL_LIBRARY ? [] : ncclPaths(env));
}
