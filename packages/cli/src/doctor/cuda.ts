/** CUDA: driver, GPUs, toolkit and our library, whether it is used, and what is missing otherwise. */
import { spawnSync } from 'node:child_process';

import fs = require('node:fs');
import path = require('node:path');

import type * as CoreNative from '@ds/core-native';
import { formatBytes } from '../terminal/format';
import type { Finding } from './finding';
import { readText } from './system';

/** The oldest driver that has what the library asks of it (CUDA 12.0). */
const leastDriver = 525;

export interface CudaNumbers {
  /** Version of the kernel driver, or null. */
  readonly driver: string | null;
  /** GPUs that the driver lists, by name. */
  readonly devices: readonly string[];
  /** Version of nvcc, or null. */
  readonly toolkit: string | null;
  /** Whether `cuda:0` can be used. */
  readonly kernels: boolean;
  /** The CUDA library that was opened, or would be. */
  readonly library: string | null;
  /** Why there is no `cuda:0`; null where there is one. */
  readonly problem: string | null;
}

export function readCuda(native: typeof CoreNative | undefined): CudaNumbers {
  const cuda = native?.cudaDevices();
  return {
    driver: /Kernel Module[^\d]*([\d.]+)/.exec(readText('/proc/driver/nvidia/version'))?.[1] ?? null,
    devices: listDevices(),
    toolkit: toolkitVersion(),
    kernels: (cuda?.devices.length ?? 0) > 0,
    library: cuda?.path ?? null,
    problem: cuda?.problem || null,
  };
}

/** NCCL, which groups of ranks with GPUs need. */
export function probeNccl(native: typeof CoreNative | undefined): Finding {
  const { path: file, version, tried } = native?.findNccl() ?? { path: '', version: '', tried: [] };
  const gpus = native?.cudaDevices().devices.length ?? 0;
  if (version) return { name: 'nccl', status: 'good', found: `NCCL ${version}`, chosen: file };
  const needed = gpus > 1 ? 'several GPUs cannot work together without it' : 'only several GPUs need it';
  const vain = tried.map(({ path: candidate, problem }) => `${candidate}: ${problem}`);
  const why = vain.length > 0 ? `tried ${vain.join('; ')}` : 'DS_NCCL_LIBRARY names a file of it';
  return { name: 'nccl', status: gpus > 1 ? 'warn' : 'info', found: `no NCCL; ${needed}`, why };
}

export function probeCuda(numbers: CudaNumbers, native: typeof CoreNative | undefined): Finding {
  const found = [
    numbers.driver ? `driver ${numbers.driver}` : 'no NVIDIA driver',
    numbers.devices.length > 0 ? numbers.devices.join(', ') : 'no GPU',
    numbers.toolkit ? `toolkit ${numbers.toolkit}` : 'no nvcc',
  ].join('; ');
  const cuda = native?.cudaDevices();
  if (!cuda || cuda.devices.length === 0)
    return {
      name: 'cuda',
      status: numbers.devices.length > 0 ? 'warn' : 'info',
      found,
      chosen: 'cpu',
      why: whyNot(numbers),
    };
  const chosen = cuda.devices.map((gpu, i) => `cuda:${i} (${gpu.name}, ${formatBytes(gpu.total)}, ${gpu.capability})`);
  const { leastCapability } = native!;
  const old = cuda.devices.some(({ capability }) => Number.parseInt(capability, 10) < leastCapability);
  const why = [
    `through ${cuda.path}${cuda.emulated ? ', which emulates a GPU on the CPU, for tests' : ''}`,
    `large matrix products by ${native!.cudaGemmLibrary()}`,
    ...(old ? [`GPUs below compute capability ${leastCapability}.0 have no kernels here`] : []),
  ].join('; ');
  return { name: 'cuda', status: old ? 'warn' : 'good', found, chosen: chosen.join(', '), why };
}

/** The first thing that is missing, and what to do about it. */
export function whyNot({ driver, devices, toolkit, library, problem }: CudaNumbers): string {
  const onCpu = 'everything runs on the CPU';
  if (library === null) return `the addon cannot be loaded; ${onCpu}`;
  if (driver === null && devices.length === 0) return `this machine has no NVIDIA driver; ${onCpu}`;
  if (driver !== null && Number.parseInt(driver, 10) < leastDriver)
    return `driver ${driver} is too old: ${leastDriver} or newer is needed; ${onCpu}`;
  if (devices.length === 0) return `the driver lists no GPU; ${onCpu}`;
  if (problem && !/cannot open shared object|no such file/i.test(problem)) return `${problem}; ${onCpu}`;
  const build = toolkit
    ? 'build it: DS_CUDA=on npm run build'
    : 'install the CUDA toolkit (12.3 or newer) and build it: npm run build';
  return `${library} is not there: ${build}; ${onCpu}`;
}

function listDevices(): string[] {
  const folder = '/proc/driver/nvidia/gpus';
  if (!fs.existsSync(folder)) return [];
  return fs.readdirSync(folder).map((name) => {
    const text = readText(path.join(folder, name, 'information'));
    return /^Model:\s*(.*)$/m.exec(text)?.[1]?.trim() ?? name;
  });
}

function toolkitVersion(): string | null {
  const folders = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'].filter((folder) => folder);
  const programs = ['nvcc', ...folders.map((folder) => path.join(folder!, 'bin', 'nvcc'))];
  for (const program of programs) {
    const { status, stdout } = spawnSync(program, ['--version'], { encoding: 'utf8', timeout: 5000 });
    if (status === 0) return /release ([\d.]+)/.exec(stdout)?.[1] ?? stdout.trim();
  }
  return null;
}
