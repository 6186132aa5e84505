/** Node, the operating system, memory: what lies under us. */
import fs = require('node:fs');
import os = require('node:os');

import { formatBytes } from '../terminal/format';
import type { Finding } from './finding';

const leastNode = 20;

export function probeNode(): Finding {
  const { node, modules, napi } = process.versions;
  const found = `Node ${node}, ABI ${modules}, Node-API ${napi}`;
  if (Number(node.split('.')[0]) >= leastNode) return { name: 'node', status: 'good', found };
  return { name: 'node', status: 'bad', found, why: `Node ${leastNode} or newer is needed` };
}

export function probeSystem(): Finding {
  const release = readText('/etc/os-release');
  const distribution = /^PRETTY_NAME="?([^"\n]*)/m.exec(release)?.[1] ?? os.type();
  const libc = glibcVersion();
  const found = [distribution, `kernel ${os.release()}`, os.arch(), ...(libc ? [`glibc ${libc}`] : [])].join(', ');
  return { name: 'system', status: 'info', found };
}

function glibcVersion(): string | undefined {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return report?.header?.glibcVersionRuntime;
}

export interface MemoryNumbers {
  readonly total_bytes: number;
  readonly available_bytes: number;
  /** What a container allows; null where nothing limits. */
  readonly limit_bytes: number | null;
}

export function readMemory(): MemoryNumbers {
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(readText('/proc/meminfo'))?.[1];
  const total = os.totalmem();
  const limits = ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'].map((file) =>
    Number.parseInt(readText(file), 10),
  );
  const limit = limits.find((bytes) => bytes > 0 && bytes < total);
  return {
    total_bytes: total,
    available_bytes: available ? Number(available) * 1024 : os.freemem(),
    limit_bytes: limit ?? null,
  };
}

export function probeMemory(): Finding {
  const { total_bytes, available_bytes, limit_bytes } = readMemory();
  const limit = limit_bytes === null ? '' : `, limited to ${formatBytes(limit_bytes)} by the container`;
  const found = `${formatBytes(total_bytes)}, ${formatBytes(available_bytes)} available${limit}`;
  return { name: 'memory', status: 'info', found };
}

/** Ranks of one host talk through this. */
const leastSharedMemoryBytes = 256e6;

export function probeSharedMemory(): Finding {
  const name = 'shared memory';
  if (process.platform !== 'linux') return { name, status: 'info', found: 'POSIX shared memory of the system' };
  try {
    const { bsize, blocks, bavail } = fs.statfsSync('/dev/shm');
    const free = bsize * bavail;
    const found = `/dev/shm of ${formatBytes(bsize * blocks)}, ${formatBytes(free)} free`;
    if (free >= leastSharedMemoryBytes) return { name, status: 'good', found };
    const why = 'ranks exchange data there; in Docker run with --shm-size=1g or --ipc=host';
    return { name, status: 'warn', found, why };
  } catch {
    const why = 'more than one rank needs it; mount a tmpfs there';
    return { name, status: 'warn', found: 'no /dev/shm', why };
  }
}

/** Reads a small file, or gives '' where there is none: what the system does not tell is no fault. */
export function readText(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
