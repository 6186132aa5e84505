/** What ends a collective badly: every rank hears of it, soon, with one sentence that says who did what. */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mismatches, type Outcome } from './mismatches';
import { type ReportedError, rankProgram, runRanks } from './run-ranks';

const SECONDS = 1000;

describe('ranks that call different things', () => {
  it.each(mismatches)(
    'fail together when the %s differs, before any data moves',
    async (variant, calls) => {
      const reports = await runRanks<Outcome>('mismatch', 3, { variant });
      for (const { value } of reports) {
        expect(value!.first).toMatchObject({ code: 'COMM', op: 'collective #2', actual: calls });
        expect(value!.next).toEqual(value!.first);
      }
      expect(reports).toHaveLength(3);
    },
    30 * SECONDS,
  );

  it('fail when the two ends of a message differ', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'message' });
    const actual = 'rank 0: send #1 "m" f32 x 4 (16 bytes) to 2; rank 2: recv #1 "m" f32 x 3 (12 bytes) from 0';
    for (const rank of [0, 2]) expect(reports[rank]!.value!.first).toMatchObject({ code: 'COMM', actual });
    expect(reports[1]!.value!.next).toMatchObject({ code: 'COMM', actual });
  });

  it('fail without a time-out when one waits in a message and the other in a collective', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'crossed' });
    const actual = 'rank 0: allReduce #2 "grads" f32 x 4 (16 bytes); rank 2: recv #1 f32 x 4 (16 bytes) from 0';
    for (const { value } of reports) expect(value!.first).toMatchObject({ code: 'COMM', actual });
  });
});

describe('a rank that cannot take part', () => {
  it('fails the others at once when an earlier op of its stream failed', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'skipped' });
    expect(reports[2]!.value!.first).toMatchObject({ code: 'SHAPE', op: 'embedding' });
    for (const { value } of reports.slice(0, 2))
      expect(value!.first).toMatchObject({
        code: 'COMM',
        op: 'allReduce "after the failure"',
        actual: expect.stringMatching(/^rank 2 that cannot/),
      });
  });

  it('ends every wait by abort, with its reason', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'abort' });
    const actual = 'rank 2 aborted it: the loss is not a number';
    for (const { value } of reports.slice(0, 2)) expect(value!.first).toMatchObject({ code: 'ABORTED', actual });
    for (const { value } of reports) expect(value!.next).toMatchObject({ code: 'ABORTED', actual });
  });

  it('is named when it has left the group', async () => {
    const reports = await runRanks<Outcome>('mismatch', 3, { variant: 'leave' });
    for (const { value } of reports.slice(0, 2))
      expect(value!.first).toMatchObject({
        code: 'COMM',
        op: 'allReduce "without you"',
        actual: expect.stringMatching(/^rank 2 that has left the group/),
      });
  });

  it('exits at once with a call still waiting, and is missed by the others', async () => {
    const reports = await runRanks<ReportedError>('exit-early', 3, {}, { timeoutMs: 20 * SECONDS });
    expect(reports[0]).toBeUndefined();
    // A tensor that is read from the memory of its rank: of a small one, the others would have had their copy.
    const actual = expect.stringMatching(/^rank 0 (\(pid \d+\) )?that has (ended|left the group)/);
    for (const { value } of reports.slice(1))
      expect(value).toMatchObject({ code: 'COMM', op: 'allReduce "too late"', actual });
  }, 30_000);

  it('makes the others time out with every rank’s last finished and pending call', async () => {
    const reports = await runRanks<{ error?: ReportedError; record?: string }>('stay-away', 3, {
      options: { timeoutMs: 500 },
    });
    const { error } = reports[0]!.value!;
    expect(error).toMatchObject({ code: 'COMM_TIMEOUT', op: 'allReduce "gradients of layer 3"' });
    const finished = String.raw`finished broadcast #1 "weights" bf16 x 1024 \(2048 bytes\) from 0`;
    const pending = String.raw`pending allReduce #2 "gradients of layer 3" f32 x 512 \(2048 bytes\) for 0\.\d s`;
    expect(error!.actual).toMatch(
      new RegExp(
        `^no call from rank 2. Flight record: rank 0: ${finished}, ${pending}; rank 1: ${finished}, ${pending}; rank 2: ${finished}, nothing pending for 0\\.\\d s$`,
      ),
    );
    expect(reports[1]!.value!.error).toEqual(error);
    expect(reports[2]!.value!.record).toContain('rank 2: finished broadcast #1 "weights"');
  });
});

/** Resolves with the milliseconds until a process has ended. */
function gone(pid: number): Promise<number> {
  const start = Date.now();
  return new Promise((resolve, reject) => {
    const look = () => {
      try {
        process.kill(pid, 0);
      } catch {
        return resolve(Date.now() - start);
      }
      if (Date.now() - start > 20 * SECONDS) return reject(new Error(`process ${pid} lives on`));
      setTimeout(look, 20);
    };
    look();
  });
}

/** A launcher process of its own, once all its ranks have said that they are at work. */
async function startLauncher(mode: string, world: number) {
  const child = spawn(process.execPath, [rankProgram('launcher'), rankProgram('forever'), String(world), mode], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const ended = new Promise<{ code: number | null; signal: string | null; output: string }>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal, output }));
  });
  const pids = new Map<string, number>();
  await new Promise<void>((resolve, reject) => {
    const onData = (bytes: Buffer) => {
      output += bytes;
      for (const [, rank, pid] of output.matchAll(/^\[(\d)\] pid (\d+)$/gm)) pids.set(rank!, Number(pid));
      if (pids.size === world) resolve();
    };
    child.stdout.on('data', onData);
    child.stderr.on('data', onData);
    child.once('close', () => reject(new Error(`the launcher ended early:\n${output}`)));
  });
  return { child, ended, pids: Array.from({ length: world }, (_, rank) => pids.get(String(rank))!) };
}

const sharedFiles = () => readdirSync('/dev/shm').filter((name) => name.startsWith('ds'));

describe('the end of a process', () => {
  it.each([0, 1, 2, 3])(
    'by kill -9 in the middle of a collective ends the whole job within 5 s, time %i',
    async (run) => {
      const job = await startLauncher('work', 3);
      const victim = run % 3;
      await new Promise((resolve) => setTimeout(resolve, 20 + 35 * run));
      const start = Date.now();
      process.kill(job.pids[victim]!, 'SIGKILL');
      const { code, output } = await job.ended;
      expect(Date.now() - start).toBeLessThan(5 * SECONDS);
      await Promise.all(job.pids.map(gone));
      expect(code).toBe(1);
      expect(output).toContain(`rank ${victim} killed by signal 9 (SIGKILL), likely out of memory`);
      // The others have noticed by themselves, and say whom they miss.
      const survivor = (victim + 1) % 3;
      expect(output).toMatch(
        new RegExp(`^\\[${survivor}\\] allReduce .* got rank ${victim} (\\(pid \\d+\\) )?that has ended`, 'm'),
      );
      expect(sharedFiles()).toEqual([]);
    },
    30_000,
  );

  it.each(['work', 'stubborn'])(
    'takes all ranks along when it is the launcher that is killed, ranks that %s',
    async (mode) => {
      const job = await startLauncher(mode, 2);
      job.child.kill('SIGKILL');
      for (const pid of job.pids) expect(await gone(pid)).toBeLessThan(5 * SECONDS);
      expect(sharedFiles()).toEqual([]);
    },
    30_000,
  );

  it('leaves nothing behind when all ranks are killed at once', async () => {
    const job = await startLauncher('work', 2);
    for (const pid of job.pids) process.kill(pid, 'SIGKILL');
    expect((await job.ended).code).toBe(1);
    expect(sharedFiles()).toEqual([]);
  }, 30_000);

  it('comes politely for Ctrl-C, and is then no failure', async () => {
    const job = await startLauncher('polite', 2);
    job.child.kill('SIGINT');
    const { output } = await job.ended;
    const { result } = JSON.parse(output.trim().split('\n').at(-1)!);
    expect(result).toEqual({
      ranks: [0, 1].map((rank) => ({ rank, code: 0, signal: null })),
      interrupted: true,
    });
  }, 30_000);

  it('comes at once for a second Ctrl-C, once ranks have had the first exactly one time', async () => {
    const job = await startLauncher('stubborn', 2);
    job.child.kill('SIGINT');
    await new Promise((resolve) => setTimeout(resolve, 300));
    const start = Date.now();
    job.child.kill('SIGINT');
    const { output } = await job.ended;
    expect(Date.now() - start).toBeLessThan(5 * SECONDS);
    await Promise.all(job.pids.map(gone));
    expect(output.match(/SIGINT$/gm)).toHaveLength(2);
    expect(output).toContain('"code":"ABORTED"');
  }, 30_000);
});
