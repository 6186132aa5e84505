/** Builds and runs the native programs of test/cuda/native: the emulation's own rules, kernels against `ref`. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

const root = path.resolve(__dirname, '../..');
const folder = path.join(root, 'packages/core-native/build-cuda-test');
/** Built beside the addon, and here where that one is missing. */
const built = process.env.DS_CUDA_LIBRARY ?? '';
const library = built || './ds-core-cuda-emulated.so';
const toolkits = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda', '/usr'];
const headers = toolkits.some((toolkit) => toolkit && existsSync(path.join(toolkit, 'include/cuda_bf16.h')));

function run(program: string, args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: folder, encoding: 'utf8' });
  return { status, output: `${error?.message ?? ''}${stdout}${stderr}` };
}

const describeWithHeaders = headers ? describe : describe.skip;

describeWithHeaders(`CUDA emulated on the CPU${headers ? '' : " (CUDA's headers are not here)"}`, () => {
  beforeAll(() => {
    const ninja = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : [];
    const configured = spawnSync(
      'cmake',
      ['-S', path.join(__dirname, 'native'), '-B', folder, `-DDS_EMULATED_LIBRARY=${built}`, ...ninja],
      { encoding: 'utf8' },
    );
    expect(configured).toMatchObject({ status: 0 });
    expect(spawnSync('cmake', ['--build', folder], { encoding: 'utf8' })).toMatchObject({ status: 0 });
  }, 900_000);

  it('keeps its own rules', () => {
    const { status, output } = run('./emulation', []);
    expect(output).toMatch(/^\d{3,} passed, 0 failed\n$/);
    expect(status).toBe(0);
  });

  it.each(['cublaslt', 'auto', 'internal', 'missing'])(
    'gives products to cuBLASLt as its interface wants: %s',
    (mode) => {
      const { status, output } = run('./cublaslt', [library, './libcublasLt-fake.so', mode]);
      expect(output).toMatch(/^\d+ passed, 0 failed\n$/);
      expect(status).toBe(0);
    },
  );

  // From last to first, beginning anywhere: a result that depends on the order of threads lacks a barrier.
  it('runs every kernel as its specification says', () => {
    const { status, output } = run('./kernels', [library, '5']);
    expect(output).toMatch(/^\d{4,} passed, 0 failed\n$/);
    expect(status).toBe(0);
  }, 900_000);
});
