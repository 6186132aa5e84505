/** NCCL's back end where something goes wrong, and where it differs from the host's: on the emulated device. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { cudaDevices } from '@ds/core-native';
import { mismatches, type Outcome } from './mismatches';
import { type ReportedError, rankProgram, runRanks } from './run-ranks';

const SECONDS = 1000;
const describeEmulated = cudaDevices().emulated ? describe : describe.skip;
const device = 'cuda';
// A sanitized build waits for every launch, so its watcher never sees a call on its way.
const itOnItsWay = process.env.DS_SANITIZER ? it.skip : it;

describeEmulated('ranks that call different things on a GPU', () => {
  it.each(mismatches)(
    'fail together when the %s differs',
    async (variant, actual) => {
      const reports = await runRanks<Outcome>('mismatch', 3, { variant, device });
      const error = { code: 'COMM', op: 'collective #2', actual };
      for (const { value } of reports) expect(value!.next).toMatchObject(error);
      // Of a broadcast, rank 1 has got its part before rank 2 differs: it hears of it by its next call.
      for (const rank of variant === 'root' ? [0, 2] : [0, 1, 2])
        expect(reports[rank]!.value!.first).toMatchObject(error);
      expect(reports).toHaveLength(3);
    },
    30 * SECONDS,
  );

  it('fail when the two ends of a message differ', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'message', device });
    const actual = 'rank 0: send #1 "m" f32 x 4 (16 bytes) to 2; rank 2: recv #1 "m" f32 x 3 (12 bytes) from 0';
    for (const rank of [0, 2]) expect(reports[rank]!.value!.first).toMatchObject({ code: 'COMM', actual });
    expect(reports[1]!.value!.next).toMatchObject({ code: 'COMM', actual });
  });

  itOnItsWay('fail without a time-out when one waits in a message and the other in a collective', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'crossed', device });
    const actual = 'rank 0: allReduce #2 "grads" f32 x 4 (16 bytes); rank 2: recv #1 f32 x 4 (16 bytes) from 0';
    for (const { value } of reports) expect(value!.first).toMatchObject({ code: 'COMM', actual });
  });

  it('fail when they ask for different sums', async () => {
    const reports = await runRanks<Outcome>('mismatch', 2, {
      variant: 'scale',
      device,
      perRank: ['nccl', 'nccl_unordered'],
    });
    for (const { error } of reports) {
      expect(error).toMatchObject({ code: 'COMM', expected: 'the same call on every rank' });
      expect(error!.actual).toMatch(/rank 0: .*sums in order of ranks.*; rank 1: .*sums in NCCL's own order/);
    }
  });
});

describeEmulated('a rank that cannot take part in calls on a GPU', () => {
  it('ends every wait by abort, with its reason', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'abort', device });
    const actual = 'rank 2 aborted it: the loss is not a number';
    for (const { value } of reports.slice(0, 2)) expect(value!.first).toMatchObject({ code: 'ABORTED', actual });
    for (const { value } of reports) expect(value!.next).toMatchObject({ code: 'ABORTED', actual });
  });

  itOnItsWay('is named when it has left the group', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'leave', device });
    for (const { value } of reports.slice(0, 2))
      expect(value!.first).toMatchObject({
        code: 'COMM',
        op: 'allReduce "without you"',
        actual: expect.stringMatching(/^rank 2 that has left the group/),
      });
  });

  itOnItsWay(
    'exits at once with a call still waiting, and is missed by the others',
    async () => {
      const reports = await runRanks<ReportedError>('exit-early', 3, { device }, { timeoutMs: 20 * SECONDS });
      expect(reports[0]).toBeUndefined();
      for (const { value } of reports.slice(1)) {
        expect(value).toMatchObject({ code: 'COMM' });
        expect(value!.actual).toMatch(/rank 0 (\(pid \d+\) )?that has (ended|left the group)|remote process exited/);
      }
    },
    30_000,
  );

  itOnItsWay('makes the others time out with every rank’s last finished and pending call', async () => {
    const reports = await runRanks<{ error?: ReportedError; record?: string }>('stay-away', 3, {
      device,
      options: { timeoutMs: 700 },
    });
    const { error } = reports[0]!.value!;
    expect(error).toMatchObject({ code: 'COMM_TIMEOUT', op: 'allReduce "gradients of layer 3"' });
    const finished = String.raw`finished broadcast #1 "weights" bf16 x 1024 \(2048 bytes\) from 0`;
    const pending = String.raw`pending allReduce #2 "gradients of layer 3" f32 x 512 \(2048 bytes\) for \d\.\d s`;
    expect(error!.actual).toMatch(
      new RegExp(
        `^no call from rank 2. Flight record: rank 0: ${finished}, ${pending}; rank 1: ${finished}, ${pending}; rank 2: ${finished}, nothing pending for \\d\\.\\d s$`,
      ),
    );
    expect(reports[1]!.value!.error).toEqual(error);
    expect(reports[2]!.value!.record).toMatch(/On cuda:\d: .*rank 2: finished broadcast #1 "weights"/);
  });
});

describeEmulated('NCCL that fails', () => {
  itOnItsWay('by an error of its own on one rank: every rank hears of it', async () => {
    const env = { DS_FAKE_NCCL: 'rank=1,error_after=1' };
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'none', device }, { env });
    for (const { value } of reports) {
      expect(value!.first).toMatchObject({ code: 'COMM', op: 'allReduce "grads"' });
      expect(value!.first!.actual).toMatch(
        /^rank \d: unhandled system error.*Flight record: rank 0: finished broadcast #1/,
      );
      expect(value!.next).toEqual(value!.first);
      expect(value!.waited).toBeLessThan(5 * SECONDS);
    }
  });

  itOnItsWay('by a call that never ends, on all ranks: the record says that all had come', async () => {
    const env = { DS_FAKE_NCCL: 'rank=1,hang_after=1' };
    const options = { timeoutMs: 700 };
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'none', device, options }, { env });
    for (const { value } of reports) {
      expect(value!.first).toMatchObject({ code: 'COMM_TIMEOUT', op: 'allReduce "grads"' });
      expect(value!.first!.actual).toMatch(/^all of them, and no end of the call\. Flight record: rank 0: /);
    }
  });

  itOnItsWay('tells of a failure where a stream only waited for the one that failed', async () => {
    const env = { DS_FAKE_NCCL: 'rank=1,error_after=1' };
    const reports = await runRanks<Outcome>('mismatch', 2, { variant: 'side', device }, { env });
    for (const { value } of reports) expect(value!.first).toMatchObject({ code: 'COMM', op: 'allReduce "side"' });
  });

  it.each([
    ['is not there', '/nowhere/libnccl.so.2', /\/nowhere\/libnccl\.so\.2: .*No such file/],
    [
      'is another library',
      '/lib/x86_64-linux-gnu/libm.so.6',
      /it has no ncclGetVersion: NCCL 2\.14 or later is needed/,
    ],
  ])('to open, because it %s: every rank says what was tried', async (_, library, pattern) => {
    const reports = await runRanks<Outcome>(
      'mismatch',
      2,
      { variant: 'none', device },
      { env: { DS_NCCL_LIBRARY: library } },
    );
    for (const { value } of reports) {
      expect(value!.first).toMatchObject({ code: 'UNSUPPORTED', op: 'open NCCL' });
      expect(value!.first!.actual).toMatch(pattern);
      expect(value!.first!.message).toMatch(/DS_NCCL_LIBRARY/);
    }
  });

  it('for being too old', async () => {
    const env = { DS_FAKE_NCCL: 'version=21003' };
    const reports = await runRanks<Outcome>('mismatch', 2, { variant: 'none', device }, { env });
    for (const { value } of reports) expect(value!.first!.actual).toMatch(/version 2\.10\.3: 2\.14 or later is needed/);
  });
});

describeEmulated('a killed rank of a job on GPUs', () => {
  it('ends the whole job within 5 s', async () => {
    const pids: number[] = [];
    const lines: string[] = [];
    const { launch } = await import('@ds/core-native');
    let killed = 0;
    const job = launch({
      world: 3,
      script: rankProgram('forever'),
      args: ['work'],
      env: { DS_TEST_DEVICE: device },
      threadsPerRank: 1,
      forwardSignals: false,
      timeoutMs: 40 * SECONDS,
      onLine: ({ rank, text }) => {
        lines.push(`[${rank}] ${text}`);
        const pid = /^pid (\d+)$/.exec(text)?.[1];
        if (pid === undefined) return;
        pids[rank] = Number(pid);
        if (Object.keys(pids).length < 3) return;
        setTimeout(() => {
          killed = Date.now();
          process.kill(pids[1]!, 'SIGKILL');
        }, 300);
      },
    });
    await expect(job).rejects.toMatchObject({
      code: 'COMM',
      actual: expect.stringContaining('rank 1 killed by signal 9'),
    });
    expect(Date.now() - killed).toBeLessThan(5 * SECONDS);
    for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow();
    // Rank 0 found out by itself, and says whom it misses.
    expect(lines.join('\n')).toMatch(/^\[0\] allReduce .* got rank 1 (\(pid \d+\) )?that has ended/m);
  }, 60_000);
});

describeEmulated("a rank's own GPU", () => {
  const ask = (env: Record<string, string>, emulate = '') => {
    const core = path.resolve(__dirname, '../../packages/core-native');
    const source = `const core = require(${JSON.stringify(core)});${emulate};
      try { console.log(core.device('cuda').name) } catch (e) { console.log(e.code, e.message) }`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', source], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    });
    expect(stderr).toBe('');
    return stdout.trim();
  };

  it.each([
    ['cuda:0', {}],
    ['cuda:1', { LOCAL_RANK: '1', LOCAL_WORLD_SIZE: '2' }],
    ['cuda:1', { OMPI_COMM_WORLD_LOCAL_RANK: '1', OMPI_COMM_WORLD_LOCAL_SIZE: '2' }],
    ['cuda:0', { LOCAL_RANK: '2', LOCAL_WORLD_SIZE: '3' }], // more ranks than GPUs: only emulated ones are shared
  ])('is %s by %j', (name, env) => {
    expect(ask(env)).toBe(name);
  });
});
