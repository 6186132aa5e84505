/** Runs tools/bench on benches whose sides say themselves how long they took, so that every figure is known. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.resolve(__dirname, '../..');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ds-bench-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A bench as JavaScript: ours takes 1 ms an iteration, the rival 3 ms. */
function bench(name: string, more: string): string {
  return `{
    name: '${name}',
    make: () => ({
      name: '${name}',
      task: 'wait',
      equal: () => {},
      ours: { name: 'ours', run: async (n) => n * 1e-3 },
      rival: { name: 'slow', run: async (n) => n * 3e-3, facts: async () => ({ peak_rss_mb: 7 }) },
      ${more}
    }),
  }`;
}

interface Run {
  status: number | null;
  stdout: string;
  stderr: string;
  rows: Record<string, unknown>[];
}

function runBench(benches: string[], ...args: string[]): Run {
  writeFileSync(path.join(folder, 'planted.mjs'), `export const benches = () => [${benches.join(',\n')}];\n`);
  const json = path.join(folder, 'rows.jsonl');
  const program = path.join(root, 'tools/bench/main.mjs');
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [program, '--folder', folder, '--no-save', '--samples', '2', '--json', json, ...args],
    { encoding: 'utf8', cwd: root, env: { ...process.env, DS_BENCH_PYTHON: '/nowhere/python3' } },
  );
  const lines = existsSync(json) ? readFileSync(json, 'utf8').trim().split('\n') : [];
  return { status, stdout, stderr, rows: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

it('gives the medians, their ratio and where they come from', () => {
  const { status, rows, stdout } = runBench([bench('wait', '')]);
  expect(status).toBe(0);
  expect(rows).toEqual([
    expect.objectContaining({
      name: 'wait',
      task: 'wait',
      ours: 1,
      rival: 3,
      rival_name: 'slow',
      ratio: 3,
      unit: 'ms',
      spread: { p10: 1, p90: 1, samples: 2 },
      rival_spread: { p10: 3, p90: 3, samples: 2 },
      roofline_share: null,
      rival_facts: { peak_rss_mb: 7 },
      machine: expect.stringContaining(`${process.platform}-${process.arch}`),
      commit: expect.stringMatching(/^([0-9a-f]{12}\+?|unknown)$/),
      command: expect.stringContaining('npx turbo run bench -- '),
    }),
  ]);
  expect(stdout).toMatch(/\| wait +\| 1 ms +\| 1–1 +\| 3 ms +\| slow +\| 3\.00× +\|/);
});

it('shows a rate as one, and still a ratio above 1 when we are faster', () => {
  const { rows } = runBench([bench('rate', "amount: 50, unit: 'tokens/s',")]);
  expect(rows).toEqual([expect.objectContaining({ ours: 50_000, rival: 16_670, ratio: 3, unit: 'tokens/s' })]);
});

it('has no row for sides that are not equal, and fails', () => {
  const unequal = "equal: () => { throw new Error('element 3 is 1, not 2'); },";
  const { status, rows, stderr } = runBench([bench('wrong', unequal), bench('right', '')]);
  expect(status).toBe(1);
  expect(rows.map((row) => row.name)).toEqual(['right']);
  expect(stderr).toContain('element 3 is 1, not 2');
});

it('says which rival is missing, and gives our figure all the same', () => {
  const { status, rows } = runBench([bench('alone', "rival: { name: 'torch', missing: 'torch is not installed' },")]);
  expect(status).toBe(0);
  expect(rows).toEqual([
    expect.objectContaining({ ours: 1, rival: null, rival_name: 'torch: torch is not installed', ratio: null }),
  ]);
});

it('measures the roofline of the bytes and operations in the same run', () => {
  const { rows } = runBench([bench('limits', 'roofline: { bytes: 1e6, flops: 1e6 },')]);
  expect(rows[0]!.roofline_share).toBeGreaterThan(0);
});

it('runs those benches whose name holds every filter', () => {
  const { rows } = runBench(
    [bench('op/a', ''), bench('op/b', ''), bench('step/b', '')],
    '--filter',
    'op',
    '--filter',
    'b',
  );
  expect(rows.map((row) => row.name)).toEqual(['op/b']);
});

it('speaks with a rival in a process of its own', () => {
  const program = path.join(folder, 'rival-program.js');
  writeFileSync(
    program,
    `import('${path.join(root, 'tools/bench/node-side.mjs')}').then(({ serve }) => serve(async ({ fails }) => ({
       run() { if (fails) throw new Error('out of luck'); },
       facts: () => ({ asked: true }),
     })));`,
  );
  const side = (fails: boolean) =>
    `new ProcessSide('other', [process.execPath, '${program}'], { prepare: { fails: ${fails} } })`;
  const both = [bench('speaks', `rival: ${side(false)},`), bench('fails', `rival: ${side(true)},`)];
  const imports = `import { ProcessSide } from '${path.join(root, 'tools/bench/process-side.mjs')}';`;
  writeFileSync(path.join(folder, 'sides.mjs'), `${imports}\nexport const benches = () => [${both.join(',\n')}];\n`);
  const { status, rows, stderr } = runBench([]);
  expect(status).toBe(1);
  expect(rows).toEqual([
    expect.objectContaining({ name: 'speaks', rival_facts: expect.objectContaining({ asked: true }) }),
  ]);
  expect(stderr).toContain('out of luck');
});
