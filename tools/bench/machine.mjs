/** Where and of what a figure was measured: machine, commit, and how much of the machine others used meanwhile. */
import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { outputOf, root } from '../programs.mjs';

const CLOCK_TICKS_A_SECOND = 100;

/** `Intel(R) Xeon(R) Processor, 2 cores, avx512, linux-x64, node 20.20.2`, the GPU's name in front where one computes. */
export function describeMachine(isa, gpu) {
  const cpu = os.cpus()[0]?.model.replace(/\s+/g, ' ').trim() ?? 'unknown CPU';
  const cores = os.cpus().length;
  return `${gpu ? `${gpu}, ` : ''}${cpu}, ${cores} cores, ${isa}, ${process.platform}-${process.arch}, node ${process.versions.node}`;
}

/** A short name for files: the GPU, or the CPU and its cores, without what every CPU is called. */
export function machineSlug(isa, gpu) {
  const cpu = os.cpus()[0]?.model.replace(/\((R|TM)\)|CPU|Processor|@.*/gi, ' ') ?? 'cpu';
  return (gpu ?? `${cpu} ${os.cpus().length}c ${isa}`)
    .trim()
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-');
}

/** What tools/gpu-check/pack.mjs leaves in a copy of the tree that is no repository. */
const bundleFile = path.join(root, 'bundle.json');

/** The commit, with `+` behind it when the sources differ from it. */
export function currentCommit() {
  if (existsSync(bundleFile)) return JSON.parse(readFileSync(bundleFile, 'utf8')).commit;
  const commit = outputOf('git', ['rev-parse', '--short=12', 'HEAD']) || 'unknown';
  return outputOf('git', ['status', '--porcelain', '--untracked-files=no', '--', 'packages', 'tools'])
    ? `${commit}+`
    : commit;
}

/** CPU seconds that the whole machine has spent, or undefined where the system does not say. */
function machineCpuSeconds() {
  if (!existsSync('/proc/stat')) return undefined;
  const [user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / CLOCK_TICKS_A_SECOND;
}

/** CPU seconds of a process, with the children it has waited for; 0 where the system does not say. */
export function cpuSecondsOf(pid) {
  try {
    // The program's name is in brackets and may hold spaces: count the fields behind it.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return fields.slice(11, 15).reduce((a, b) => a + Number(b), 0) / CLOCK_TICKS_A_SECOND;
  } catch {
    return 0;
  }
}

/** CPU seconds of this process and of the processes `pids`. */
function ownCpuSeconds(pids) {
  return [process.pid, ...pids].reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
}

/** Starts watching; the function it gives tells how many cores other processes used on average since then. */
export function watchOthers(pids) {
  const start = { machine: machineCpuSeconds(), own: ownCpuSeconds(pids), at: performance.now() };
  return () => {
    const machine = machineCpuSeconds();
    if (machine === undefined) return null;
    const seconds = (performance.now() - start.at) / 1000;
    return Math.max(0, (machine - start.machine - (ownCpuSeconds(pids) - start.own)) / seconds);
  };
}
