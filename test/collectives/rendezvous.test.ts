/** Ranks that were started by something else than our launcher: who they are, and how they meet. */
import { execFile, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { readRankEnvironment } from '@ds/core-native';
import { rankProgram } from './run-ranks';

interface Report {
  rank?: number;
  value?: { size: number; sum: number };
  error?: { code: string; actual: string };
}

/** What a build with a sanitizer needs, beside PATH. */
const keptVariables = [
  'PATH',
  'LD_PRELOAD',
  'DS_NATIVE_PATH',
  'ASAN_OPTIONS',
  'LSAN_OPTIONS',
  'UBSAN_OPTIONS',
  'TSAN_OPTIONS',
];

/** Runs the hello program with these variables only. */
function startRank(env: Record<string, string>, options: object = {}): Promise<Report> {
  const args = [rankProgram('hello'), JSON.stringify({ options: { timeoutMs: 20_000, ...options } })];
  const inherited = Object.entries(process.env).filter(([name]) => keptVariables.includes(name));
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { env: { ...Object.fromEntries(inherited), ...env } }, (error, stdout, stderr) =>
      error ? reject(new Error(stderr)) : resolve(JSON.parse(stdout)),
    );
  });
}

const port = String(20_000 + (process.pid % 20_000));
const torchrun = (rank: number, world: number, session = port) => ({
  RANK: String(rank),
  WORLD_SIZE: String(world),
  MASTER_ADDR: '127.0.0.1',
  MASTER_PORT: session,
});

describe('ranks without a launcher of ours', () => {
  it('meet by the address and port that torchrun gives them, and leave no file', async () => {
    const before = readdirSync('/dev/shm');
    const reports = await Promise.all([0, 1, 2].map((rank) => startRank(torchrun(rank, 3))));
    for (const { value } of reports) expect(value).toMatchObject({ size: 3, sum: 6 });
    expect(readdirSync('/dev/shm')).toEqual(before);
  }, 30_000);

  it('wait for each other, whoever comes first', async () => {
    const last = startRank(torchrun(1, 2, `${port}1`));
    await new Promise((resolve) => setTimeout(resolve, 600));
    const reports = await Promise.all([startRank(torchrun(0, 2, `${port}1`)), last]);
    for (const { value } of reports) expect(value).toMatchObject({ size: 2, sum: 3 });
  }, 30_000);

  it('name those who do not come', async () => {
    const env = (rank: number) => torchrun(rank, 4, `${port}2`);
    const reports = await Promise.all([0, 2].map((rank) => startRank(env(rank), { timeoutMs: 1500 })));
    expect(reports[0]!.error).toMatchObject({ code: 'COMM_TIMEOUT', actual: 'nothing from rank 1, 3' });
    expect(reports[1]!.error!.code).toBe('COMM_TIMEOUT');
  }, 30_000);

  it('refuse a rank that comes twice, and a world of another size', async () => {
    const twice = await Promise.all(
      [1, 1, 0].map((rank) => startRank(torchrun(rank, 3, `${port}3`), { timeoutMs: 1500 })),
    );
    expect(twice.map(({ error }) => error?.actual)).toContain('rank 1 a second time');
    const sizes = await Promise.all([
      startRank(torchrun(0, 2, `${port}4`), { timeoutMs: 3000 }),
      startRank(torchrun(1, 3, `${port}4`), { timeoutMs: 3000 }),
    ]);
    expect(sizes[0]!.error).toMatchObject({ code: 'COMM', actual: '2 here and rank 1 of 3' });
    expect(sizes[1]!.error!.code).toMatch(/^COMM/);
  }, 30_000);

  const mpirun = spawnSync('mpirun', ['--version'], { encoding: 'utf8' });
  const withMpi = mpirun.status === 0 && mpirun.stdout.includes('Open MPI') ? it : it.skip;
  withMpi(
    'meet under mpirun',
    () => {
      const args = ['-n', '3', '--oversubscribe', '--allow-run-as-root', process.execPath, rankProgram('hello')];
      const { stdout, stderr, status } = spawnSync('mpirun', args, { encoding: 'utf8' });
      expect([status, stderr]).toEqual([0, '']);
      const reports = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Report);
      expect(reports.map(({ rank }) => rank).sort()).toEqual([0, 1, 2]);
      for (const { value } of reports) expect(value).toMatchObject({ size: 3, sum: 6 });
    },
    30_000,
  );
});

describe('readRankEnvironment', () => {
  it('finds nothing in a program that was started alone, nor in a Slurm batch script without srun', () => {
    expect(readRankEnvironment({})).toBeUndefined();
    expect(readRankEnvironment({ SLURM_PROCID: '0', SLURM_NTASKS: '4', SLURM_JOB_ID: '7' })).toBeUndefined();
  });

  it('reads torchrun, Open MPI, Slurm and MPICH', () => {
    const place = { rank: 1, world: 4, localRank: 1, localWorld: 4 };
    expect(readRankEnvironment({ ...torchrun(1, 4, '29500'), TORCHELASTIC_RUN_ID: 'x' })).toEqual({
      ...place,
      session: '127.0.0.1:29500:x',
    });
    const ompi = {
      OMPI_COMM_WORLD_RANK: '1',
      OMPI_COMM_WORLD_SIZE: '4',
      OMPI_COMM_WORLD_LOCAL_RANK: '1',
      OMPI_COMM_WORLD_LOCAL_SIZE: '4',
      PMIX_NAMESPACE: '99',
    };
    expect(readRankEnvironment(ompi)).toEqual({ ...place, session: 'ompi:99' });
    const slurm = {
      SLURM_PROCID: '1',
      SLURM_STEP_NUM_TASKS: '4',
      SLURM_LOCALID: '1',
      SLURM_JOB_ID: '7',
      SLURM_STEP_ID: '0',
    };
    expect(readRankEnvironment(slurm)).toEqual({ ...place, session: 'slurm:7.0' });
    const pmi = { PMI_RANK: '1', PMI_SIZE: '4', PMI_JOBID: 'j' };
    expect(readRankEnvironment(pmi)).toEqual({ ...place, session: 'pmi:j' });
    expect(readRankEnvironment({ ...pmi, DS_SESSION: 'mine' })).toEqual({ ...place, session: 'mine' });
  });

  it.each([
    [{ ...torchrun(1, 8), LOCAL_WORLD_SIZE: '4', LOCAL_RANK: '1' }, '4 of 8 ranks on this one'],
    [{ ...torchrun(1, 2), MASTER_ADDR: '192.0.2.7' }, 'MASTER_ADDR 192.0.2.7, which is no address of this one'],
    [
      {
        SLURM_PROCID: '1',
        SLURM_STEP_NUM_TASKS: '4',
        SLURM_LOCALID: '1',
        SLURM_STEP_ID: '0',
        SLURM_STEP_NUM_NODES: '2',
      },
      'a job step on 2 nodes (SLURM_STEP_NUM_NODES)',
    ],
  ])('refuses ranks on more than one host: %j', (env, actual) => {
    const error = { code: 'UNSUPPORTED', expected: 'all ranks on one host', actual };
    expect(() => readRankEnvironment(env)).toThrow(expect.objectContaining(error));
  });

  it.each([
    [{ RANK: '0' }, 'a whole number in WORLD_SIZE', 'nothing'],
    [{ ...torchrun(0, 2), RANK: 'one' }, 'a whole number in RANK', 'one'],
    [torchrun(2, 2), 'a rank below the 2 ranks of the world', '2'],
    [{ RANK: '0', WORLD_SIZE: '2' }, 'MASTER_ADDR and MASTER_PORT (or DS_SESSION) beside RANK and WORLD_SIZE', 'none'],
  ])('refuses variables that make no sense: %j', (env, expected, actual) => {
    expect(() => readRankEnvironment(env)).toThrow(expect.objectContaining({ code: 'CONFIG', expected, actual }));
  });
});
