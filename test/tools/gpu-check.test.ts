/** The GPU check on the emulated device: everything but figures; and its bundle, in an environment that has nothing of ours. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { cudaDevices } from '@ds/core-native';

const root = path.resolve(__dirname, '../..');
const program = path.join(root, 'tools/gpu-check/main.mjs');
const emulated = cudaDevices().emulated;
const describeEmulated = emulated ? describe : describe.skip;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ds-gpu-check-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Run {
  status: number | null;
  stderr: string;
  table: string;
  checks: { stage: string; name: string; outcome: string; detail: string }[];
  rows: Record<string, unknown>[];
}

function readRun(out: string, { status, stderr }: { status: number | null; stderr: string }): Run {
  const read = (file: string) => {
    const full = path.join(out, file);
    return existsSync(full) ? readFileSync(full, 'utf8') : '';
  };
  const lines = read('checks.jsonl').split('\n').filter(Boolean);
  return {
    status,
    stderr,
    table: read('table.md'),
    checks: lines.map((line) => JSON.parse(line)),
    rows: JSON.parse(read('rows.json') || '[]'),
  };
}

/** No Python with torch: what has no rival must still be right. */
const environment: NodeJS.ProcessEnv = { ...process.env, DS_BENCH_PYTHON: '/nowhere/python3' };

function check(...args: string[]): Run {
  const options = { encoding: 'utf8', cwd: root, env: environment } as const;
  return readRun(folder, spawnSync(process.execPath, [program, '--tiny', '--out', folder, ...args], options));
}

describeEmulated(`the GPU check${emulated ? '' : ' (no emulated device was built)'}`, () => {
  it('passes the cases of an op that has a kernel, and times it against the specification', () => {
    const run = check('--stage', 'cases', '--stage', 'bench-bandwidth', '--filter', 'layer_norm');
    const cases = run.checks.filter(({ stage }) => stage === 'cases');
    expect(cases.length).toBeGreaterThan(20);
    expect(cases.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(run.rows).toContainEqual(
      expect.objectContaining({
        name: 'cuda/layer_norm/forward',
        unit: 'ms',
        rival: null,
        rival_name: expect.stringContaining('is not installed'),
        spread: { p10: expect.any(Number), p90: expect.any(Number), samples: 1 },
        roofline_share: expect.any(Number),
        machine: expect.stringContaining('mulated'),
        commit: expect.stringMatching(/^([0-9a-f]{12}\+?|unknown)$/),
      }),
    );
    expect(run.table).toMatch(/\| cases \| \d\d \| 0 \| 0 \| 0 \| \d+ \| done \|/);
    expect(run.table).toContain('ZeRO-Offload step: not built');
  }, 120_000);

  it('walks models and whole-model benches, whatever can be judged without a rival', () => {
    const stages = ['bloom', 'bench-adamw', 'bench-gemm', 'bench-sparse'].flatMap((name) => ['--stage', name]);
    const run = check(...stages);
    expect(run.checks.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(run.checks.map(({ stage }) => stage).sort()).toEqual([
      ...['bench-adamw', 'bench-gemm', 'bench-gemm', 'bench-gemm', 'bench-sparse', 'bench-sparse'],
      ...['bloom', 'bloom', 'bloom'],
    ]);
    expect(run.rows).toHaveLength(6);
    expect(run.status).toBe(0);
  }, 240_000);

  it('has no row for a bench that nothing can vouch for', () => {
    const run = check('--stage', 'bench-bloom', '--filter', 'step');
    expect(run.checks).toEqual([
      expect.objectContaining({
        outcome: 'failed',
        detail: expect.stringMatching(/nothing to compare with: .* is not installed/),
      }),
    ]);
    expect(run.rows).toEqual([]);
    expect(run.status).toBe(1);
  }, 120_000);

  it('keeps what a stage had found when its time is over', () => {
    const run = check('--stage', 'cases', '--budget', '22');
    const cut = run.checks.filter(({ outcome }) => outcome === 'skipped');
    expect(cut).toEqual([
      expect.objectContaining({ stage: 'cases', detail: expect.stringMatching(/^cut off after \d+ s$/) }),
    ]);
    expect(run.checks.length).toBeGreaterThan(1);
    expect(run.table).toMatch(/\| cases \| .* \| CUT OFF \|/);
    expect(run.status).toBe(3);
  }, 120_000);

  it.each([
    [0, 'ERROR SUMMARY: 0 errors', 'passed', /^ERROR SUMMARY: 0 errors$/],
    [86, 'ERROR SUMMARY: 2 errors', 'failed', /^ERROR SUMMARY: 2 errors\. =+ Invalid __global__ write/],
    [0, 'no such tool', 'failed', /ended with status 0 and no summary/],
  ])(
    'takes a sanitizer that ends with %d and says "%s" as %s',
    (status, summary, outcome, detail) => {
      const said = `echo '========= Invalid __global__ write'; echo '========= ${summary}'; exit ${status}`;
      writeFileSync(path.join(folder, 'compute-sanitizer'), `#!/bin/sh\n${said}\n`, { mode: 0o755 });
      const env = { ...environment, PATH: `${folder}:${process.env.PATH}` };
      const args = [program, '--out', folder, '--stage', 'sanitizer'];
      const run = readRun(folder, spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root, env }));
      expect(run.checks.map(({ name }) => name).sort()).toEqual(['memcheck', 'racecheck', 'synccheck']);
      for (const found of run.checks) expect(found).toMatchObject({ outcome, detail: expect.stringMatching(detail) });
      expect(run.status).toBe(outcome === 'passed' ? 0 : 1);
    },
    60_000,
  );

  it('skips aloud what does not fit, and says so in its status', () => {
    const run = check('--stage', 'cases', '--budget', '5');
    expect(run.checks).toEqual([expect.objectContaining({ stage: 'cases', outcome: 'skipped' })]);
    expect(run.table).toMatch(/SKIPPED: no time left/);
    expect(run.table).toMatch(/\*\*skipped\*\* cases: the stage: \d s of 5 s were left, it wants 20/);
    expect(run.status).toBe(3);
  }, 60_000);

  it.each([
    [['--stage', 'casse'], /no stage is called casse/],
    [['--budget', 'long'], /--budget wants seconds, got long/],
  ])('refuses %j', (args, pattern) => {
    const run = check(...args);
    expect(run.status).toBe(2);
    expect(run.stderr).toMatch(pattern);
  });

  it('says why no library works, and fails', () => {
    const missing = path.join(folder, 'ds-core-cuda.so');
    const options = { encoding: 'utf8', cwd: root, env: { ...environment, DS_CUDA_LIBRARY: missing } } as const;
    const run = readRun(folder, spawnSync(process.execPath, [program, '--out', folder], options));
    expect(run.status).toBe(1);
    expect(run.checks).toEqual([expect.objectContaining({ stage: 'library', outcome: 'failed' })]);
    expect(run.table).toContain(`${missing} is not there`);
  });

  const built = existsSync(path.join(root, 'packages/core-native/build/Release/ds-core-cuda.so'));
  (built ? it.skip : it)(
    'compiles a library for the GPU at hand where none fits',
    () => {
      const made = path.join(root, 'packages/core-native/build-gpu-check');
      const programs = {
        'nvidia-smi': 'echo "NVIDIA Test, 8.6, 580.1, 24 GiB, 1700 MHz, 300 W"',
        nvcc: 'echo release 13.0',
        cmake: `echo "$@" >> ${folder}/cmake.log; cp "${process.env.DS_CUDA_LIBRARY}" ${made}/ds-core-cuda.so`,
      };
      for (const [name, script] of Object.entries(programs))
        writeFileSync(path.join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
      const { DS_CUDA_LIBRARY: _, ...rest } = environment;
      const env = { ...rest, PATH: `${folder}:${process.env.PATH}` };
      const args = [program, '--tiny', '--out', folder, '--stage', 'cases', '--filter', 'scale_add'];
      const run = readRun(folder, spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root, env }));
      rmSync(made, { recursive: true, force: true });
      expect(readFileSync(path.join(folder, 'cmake.log'), 'utf8')).toMatch(
        /^-S .*csrc\/cuda -B .* -DCMAKE_CUDA_ARCHITECTURES=86-real .*\n--build .* -j \d+\n$/m,
      );
      expect(run.table).toMatch(/NVIDIA Test, compute capability 8\.6.*driver 580\.1, nvcc 13\.0/);
      expect(run.table).toMatch(
        /CUDA library: compiled on the spot in [\d.]+ s, because: .*ds-core-cuda\.so is not there/,
      );
      expect(run.status).toBe(0);
    },
    60_000,
  );

  it('runs from its bundle where nothing of ours is installed', () => {
    const packed = path.join(folder, 'bundle');
    const pack = path.join(root, 'tools/gpu-check/pack.mjs');
    const args = [pack, '--no-build', '--no-cuda', '--level', '0', '--out', packed];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root });
    // The native tests are another file's to build; where they are not, the bundle says so and does without.
    expect(`${status} ${stderr}`).toMatch(/^0 (pack: .*kernels is not built.*\n)?$/);
    expect(stdout).toMatch(/^pack: .*, \d+\.\d MiB, without a CUDA library/m);
    expect(readdirSync(packed).sort()).toEqual(['run.sh', 'tree.tar.xz']);
    const out = path.join(folder, 'out');
    const run = spawnSync(
      'bash',
      [path.join(packed, 'run.sh'), '--tiny', '--stage', 'cases', '--filter', 'scale_add'],
      {
        encoding: 'utf8',
        cwd: folder,
        env: {
          PATH: '/usr/bin:/bin:/usr/local/bin',
          HOME: folder,
          OUT: out,
          DS_CUDA_LIBRARY: process.env.DS_CUDA_LIBRARY,
        },
      },
    );
    const { checks, table } = readRun(out, run);
    expect(checks.length).toBeGreaterThan(10);
    expect(checks.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(table).toContain('works as it is');
  }, 300_000);
});
