/** Every kernel of the library against its specification, by the program of test/cuda/native: no Node, no addon, any alignment. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { root, shown } from '../../programs.mjs';
import { recordCheck } from '../record.mjs';
import { stageArguments } from '../stage-arguments.mjs';

const { out } = stageArguments();
const program = path.join(root, 'packages/core-native/build-cuda-test/kernels');
if (!existsSync(program)) {
  const remedy =
    'cmake -S test/cuda/native -B packages/core-native/build-cuda-test && cmake --build packages/core-native/build-cuda-test --target kernels';
  recordCheck(out, 'native', 'kernels', 'skipped', `${shown(program)} is not built: ${remedy}`);
  process.exit();
}
const { status, stdout, stderr, error } = spawnSync(program, [process.env.DS_CUDA_LIBRARY], {
  encoding: 'utf8',
  maxBuffer: 2 ** 28,
});
const lines = stdout.split('\n');
const failures = lines.filter((line) => line.startsWith('FAILED '));
for (const line of failures) recordCheck(out, 'native', line.slice(7).split(':')[0], 'failed', line.slice(7));
const [, passed] = /^(\d+) passed, \d+ failed$/m.exec(stdout) ?? [];
if (passed) recordCheck(out, 'native', `${passed} cases of the kernels' own tests`, 'passed');
if (!passed || (status !== 0 && failures.length === 0))
  recordCheck(
    out,
    'native',
    'kernels',
    'failed',
    `ended with status ${status}: ${error?.message ?? ''}${stderr}`.slice(0, 2000),
  );
