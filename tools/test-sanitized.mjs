/**
 * `npm run test:asan` (memory, leaks and undefined behaviour) and `npm run test:tsan` (data races).
 *
 * Builds the addon with the sanitizer into a folder of its own and runs the tests that reach native code with it.
 * Arguments after `--` go to jest instead of the default paths. A report from any process fails the run, also one that
 * comes at the exit of a process whose tests have all passed.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { build } from './build.mjs';
import { closingLine, runJest } from './jest-run.mjs';
import { buildNative } from './native/build.mjs';
import { outputOf } from './programs.mjs';
import { setup } from './setup.mjs';

const sanitizers = {
  address: {
    flags: 'address,undefined',
    out: 'build-asan',
    preload: ['libasan.so', 'libstdc++.so'],
    passes: [
      {
        tests: ['packages/core-native/src', 'test/ops', 'packages/io/src/safetensors/(reader|writer)'],
        environment: (folder) => addressOptions(folder, true),
      },
      {
        // Ranks that are killed, or end in the middle of something on purpose, leave Node's own memory behind.
        tests: ['test/collectives'],
        environment: (folder) => addressOptions(folder, false),
      },
    ],
  },
  thread: {
    flags: 'thread',
    out: 'build-tsan',
    preload: ['libtsan.so'],
    passes: [
      {
        tests: ['packages/core-native/src/(?!ops/)', 'test/collectives'],
        environment: threadOptions,
      },
      {
        // Kernels on the pool. Those of the emulated GPU run in fibers of one thread: slow here, and without a race to find.
        tests: ['packages/core-native/src/ops', 'test/ops'],
        environment: (folder) => ({ ...threadOptions(folder), DS_CUDA_LIBRARY: '' }),
      },
    ],
  },
};

function threadOptions(folder) {
  // Node is not instrumented: without this option its own synchronisation looks like races.
  return { TSAN_OPTIONS: `log_path=${path.join(folder, 'report')}:ignore_noninstrumented_modules=1:exitcode=66` };
}

function addressOptions(folder, leaks) {
  const log = path.join(folder, 'report');
  // jest's own addons leak a few hundred bytes when they load. Nothing of Node's is suppressed: that would hide ours.
  const suppressions = path.join(folder, '.suppressions');
  writeFileSync(suppressions, 'leak:swc\nleak:@unrs/resolver\n');
  return {
    // gcc 12 reads the size of dynamic thread-local blocks where glibc 2.26+ no longer writes it, and then crashes.
    ASAN_OPTIONS: `log_path=${log}:detect_leaks=${Number(leaks)}:intercept_tls_get_addr=0:exitcode=66`,
    LSAN_OPTIONS: `suppressions=${suppressions}:print_suppressions=0`,
    UBSAN_OPTIONS: `log_path=${log}:print_stacktrace=1:exitcode=66`,
  };
}

/** Gives the reports that processes wrote, and prints them. */
function reports(folder) {
  const files = readdirSync(folder).filter((file) => file.startsWith('report'));
  for (const file of files) console.log(`\n--- ${file}\n${readFileSync(path.join(folder, file), 'utf8')}`);
  return files.length;
}

async function test(sanitizer, args) {
  await setup();
  await build();
  const addon = await buildNative({ out: sanitizer.out, sanitize: sanitizer.flags });
  const folder = mkdtempSync(path.join(tmpdir(), 'ds-sanitizer-'));
  try {
    const preload = sanitizer.preload.map((library) => outputOf('c++', [`-print-file-name=${library}`]));
    const total = { passed: 0, failed: 0, skipped: 0 };
    for (const { tests, environment } of sanitizer.passes) {
      const env = {
        ...environment(folder),
        DS_SANITIZER: sanitizer.flags,
        DS_NATIVE_PATH: addon,
        LD_PRELOAD: preload.join(' '),
      };
      // In one process: jest kills a worker that takes more than half a second to leave, and the leak check is in leaving.
      const counts = await runJest(['--runInBand', ...(args.length > 0 ? args : tests)], env);
      for (const key of Object.keys(total)) total[key] += counts[key] ?? 0;
      if (args.length > 0) break;
    }
    return { ...total, failed: total.failed + reports(folder) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const [name, ...args] = process.argv.slice(2);
const sanitizer = sanitizers[name];
if (!sanitizer) throw new Error(`usage: test-sanitized.mjs ${Object.keys(sanitizers).join('|')} [jest arguments]`);
let counts = { passed: 0, failed: 1, skipped: 0 };
try {
  if (process.platform !== 'linux') throw new Error('sanitizers are preloaded, which is done for Linux only');
  counts = await test(sanitizer, args);
} catch (error) {
  console.error(`test: ${error.message}`);
}
console.log(`\n${closingLine(counts)}`);
process.exitCode = counts.failed > 0 ? 1 : 0;
