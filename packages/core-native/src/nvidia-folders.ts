/** Where NVIDIA's libraries are put, for those that we open at run time. */
import fs = require('node:fs');
import os = require('node:os');
import path = require('node:path');

const present = (folders: (string | undefined)[]): string[] => [
  ...new Set(folders.filter((folder): folder is string => folder !== undefined && folder !== '')),
];

/** Folders of the CUDA toolkits that the environment names, and of the usual one. */
export function toolkitFolders(env: NodeJS.ProcessEnv): string[] {
  const machine = process.arch === 'arm64' ? 'sbsa' : 'x86_64';
  return present([env.CUDA_HOME, env.CUDA_PATH, '/usr/local/cuda']).flatMap((toolkit) => [
    path.join(toolkit, 'lib64'),
    path.join(toolkit, `targets/${machine}-linux/lib`),
  ]);
}

/** Folders into which pip and conda put a library that comes in one of `wheels`: those that exist. */
export function pythonFolders(env: NodeJS.ProcessEnv, wheels: readonly string[]): string[] {
  const local = path.join(env.HOME ?? os.homedir(), '.local');
  const inPython = present([env.VIRTUAL_ENV, env.CONDA_PREFIX, local, '/usr/local', '/usr'])
    .map((root) => path.join(root, 'lib'))
    .filter((lib) => fs.existsSync(lib))
    .flatMap((lib) =>
      fs
        .readdirSync(lib)
        .filter((name) => name.startsWith('python3'))
        .map((name) => path.join(lib, name)),
    )
    .flatMap((python) => ['site-packages', 'dist-packages'].map((packages) => path.join(python, packages, 'nvidia')))
    .flatMap((nvidia) => wheels.map((wheel) => path.join(nvidia, wheel, 'lib')));
  return [...present([env.CONDA_PREFIX && path.join(env.CONDA_PREFIX, 'lib')]), ...inPython].filter((folder) =>
    fs.existsSync(folder),
  );
}
