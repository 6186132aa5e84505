/** The addon, the vector unit, the threads: what computes. */
import os = require('node:os');

import type * as CoreNative from '@ds/core-native';
import type { Finding } from './finding';
import { readText } from './system';

/** Instruction sets, best first, by the flags of /proc/cpuinfo that they need. */
const vectorUnits = [
  { isa: 'avx512', flags: ['avx512f', 'avx512bw', 'avx512vl'] },
  { isa: 'avx2', flags: ['avx2', 'fma'] },
] as const;

/** Loads the addon here and not at the top: that it cannot be loaded is a finding, too. */
export function loadNative(): { native: typeof CoreNative | undefined; finding: Finding } {
  const name = 'native addon';
  try {
    const native = require('@ds/core-native') as typeof CoreNative;
    return { native, finding: { name, status: 'good', found: `loaded for ${process.platform}-${process.arch}` } };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { native: undefined, finding: { name, status: 'bad', found: 'cannot be loaded', why: message } };
  }
}

export function probeCpu(native: typeof CoreNative | undefined): Finding {
  const cpus = os.cpus();
  const model = cpus[0]?.model.trim() ?? 'unknown';
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(readText('/proc/cpuinfo'))?.[1]?.split(' ') ?? []);
  const present = vectorUnits.filter((unit) => unit.flags.every((flag) => flags.has(flag))).map(({ isa }) => isa);
  const found = `${model}, ${cpus.length} cores${present.length > 0 ? `, ${present.join(' and ')}` : ''}`;
  if (!native) return { name: 'cpu', status: 'info', found };
  const { isa, supported } = native.cpuFeatures();
  const forced = process.env.DS_CPU_ISA ? `DS_CPU_ISA=${process.env.DS_CPU_ISA} says so; ` : '';
  const why = `${forced}this build can use ${supported.join(', ')} here`;
  return { name: 'cpu', status: 'good', found, chosen: isa, why };
}

/** Whose matrix product runs. */
export function probeProduct(native: typeof CoreNative | undefined): Finding {
  const name = 'blas';
  if (!native) return { name, status: 'info', found: 'unknown without the addon' };
  const { library, choice } = native.matrixProduct();
  const found = library ? 'OpenBLAS (serial, on our own threads) is in this build' : 'none in this build';
  const chosen = choice === 'auto' && !library ? 'internal' : choice;
  const why = {
    auto: 'our own kernels, and the library for gradients of weights, where it is faster',
    openblas: 'DS_GEMM says so',
    internal: library
      ? 'DS_GEMM says so'
      : 'our own kernels need no library (Debian: libopenblas-serial-dev before the build)',
  }[chosen];
  return { name, status: 'good', found, chosen, why };
}

export function probeThreads(native: typeof CoreNative | undefined): Finding {
  const available = os.availableParallelism();
  const found = `${available} of ${os.cpus().length} cores may be used`;
  if (!native) return { name: 'threads', status: 'info', found };
  const why = process.env.DS_NUM_THREADS
    ? 'as DS_NUM_THREADS says'
    : 'one a core; `ds launch` gives each rank its part';
  return { name: 'threads', status: 'info', found, chosen: String(native.threads()), why };
}
