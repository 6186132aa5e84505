import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ncclPaths } from './nccl';

describe('where NCCL is looked for', () => {
  let root: string;
  const put = (folder: string) => {
    mkdirSync(path.join(root, folder), { recursive: true });
    writeFileSync(path.join(root, folder, 'libnccl.so.2'), '');
  };
  beforeEach(() => {
    root = mkdtempSync(path.join(os.tmpdir(), 'ds-nccl-'));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  it('takes the file or the folder that was named, and nothing else', () => {
    put('a');
    const file = path.join(root, 'a/libnccl.so.2');
    expect(ncclPaths({ DS_NCCL_LIBRARY: file, CUDA_HOME: root })).toEqual([file]);
    expect(ncclPaths({ DS_NCCL_LIBRARY: path.join(root, 'a') })).toEqual([file]);
    expect(ncclPaths({ DS_NCCL_LIBRARY: `${root}/none` })).toEqual([`${root}/none`]);
  });

  it('asks the system by name, then the files that are there: toolkits, conda, pip', () => {
    for (const folder of [
      'toolkit/lib64',
      'venv/lib/python3.12/site-packages/nvidia/nccl/lib',
      'conda/lib',
      'home/.local/lib/python3.11/site-packages/nvidia/nccl/lib',
      'venv/lib/python3.12/site-packages/nvidia/cublas/lib', // another wheel's
    ])
      put(folder);
    const env = {
      CUDA_HOME: `${root}/toolkit`,
      VIRTUAL_ENV: `${root}/venv`,
      CONDA_PREFIX: `${root}/conda`,
      HOME: `${root}/home`,
    };
    const own = ncclPaths(env).filter((file) => file.startsWith(root) || !path.isAbsolute(file));
    expect(own).toEqual([
      'libnccl.so.2',
      `${root}/toolkit/lib64/libnccl.so.2`,
      `${root}/conda/lib/libnccl.so.2`,
      `${root}/venv/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2`,
      `${root}/home/.local/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2`,
    ]);
  });
});
