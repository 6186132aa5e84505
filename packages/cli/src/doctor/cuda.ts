/** CUDA: driver, devices and toolkit, and why this build uses none of them. */
import { spawnSync } from 'node:child_process';

import fs = require('node:fs');
import path = require('node:path');

import type { Finding } from './finding';
import { readText } from './system';

export interface CudaNumbers {
  /** Version of the kernel driver, or null. */
  readonly driver: string | null;
  readonly devices: readonly string[];
  /** Version of nvcc, or null. */
  readonly toolkit: string | null;
  /** Whether this build of the addon has CUDA kernels. */
  readonly kernels: boolean;
}

export function readCuda(): CudaNumbers {
  return {
    driver: /Kernel Module[^\d]*([\d.]+)/.exec(readText('/proc/driver/nvidia/version'))?.[1] ?? null,
    devices: listDevices(),
    toolkit: toolkitVersion(),
    kernels: false,
  };
}

export function probeCuda(): Finding {
  const { driver, devices, toolkit } = readCuda();
  const found = [
    driver ? `driver ${driver}` : 'no NVIDIA driver',
    devices.length > 0 ? devices.join(', ') : 'no device',
    toolkit ? `toolkit ${toolkit}` : 'no nvcc',
  ].join('; ');
  const why = 'this build has no CUDA kernels: everything runs on the CPU';
  return { name: 'cuda', status: 'info', found, chosen: 'cpu', why };
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
