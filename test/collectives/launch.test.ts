/** The launcher: what ranks get, what people read, and what is left when something ends badly. */
import { execPath } from 'node:process';
import { type DsError, launch, type RankLine } from '@ds/core-native';
import { rankProgram, runRanks } from './run-ranks';

/** Launches `node -e code` on every rank; gives the lines and the error. */
async function tryCode(code: string, options: Partial<Parameters<typeof launch>[0]> = {}) {
  const lines: RankLine[] = [];
  const error = await launch({
    world: 2,
    command: [execPath, '-e', code],
    forwardSignals: false,
    graceMs: 500,
    ...options,
    onLine: (line) => {
      lines.push(line);
      options.onLine?.(line);
    },
  }).then(
    () => undefined,
    (reason: DsError) => reason,
  );
  return { lines, error };
}

describe('launch', () => {
  it('joins the ranks, and tells each its place, its threads and nothing that its children could take for theirs', async () => {
    interface Value {
      sum: number;
    }
    const reports = await runRanks<Value>('hello', 3, {}, { threadsPerRank: 2 });
    const texts = ['', 'zwei', 'три'];
    const transport = expect.stringContaining('shared memory');
    for (const { value } of reports)
      expect(value).toEqual({ size: 3, sum: 6, texts, transport, threads: 2, leftOver: [] });
  }, 30_000);

  it('runs any command with the variables that ranks read', async () => {
    const names = ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'DS_NUM_THREADS', 'MINE'];
    const code = `console.log(${JSON.stringify(names)}.map((n) => process.env[n]).join())`;
    const { lines, error } = await tryCode(code, { env: { MINE: 'own', DS_NUM_THREADS: '7' } });
    expect(error).toBeUndefined();
    expect(lines.map(({ text }) => text).sort()).toEqual(['0,2,0,2,7,own', '1,2,1,2,7,own']);
  });

  it('gives whole lines, the last without a newline too, and says which rank and stream they came from', async () => {
    const code = `process.stdout.write('a\\nb\\r\\nc ü'); process.stderr.write('e\\n')`;
    const { lines } = await tryCode(code, { world: 1 });
    const of = (stream: string) => lines.filter((line) => line.stream === stream).map(({ text }) => text);
    expect(of('stdout')).toEqual(['a', 'b', 'c ü']);
    expect(of('stderr')).toEqual(['e']);
    expect(new Set(lines.map(({ rank }) => rank))).toEqual(new Set([0]));
  });

  it('ends the others when one fails, and gives its exit code and last lines as the cause', async () => {
    const code = `if (process.env.RANK === '1') {
      for (let i = 0; i < 30; i++) console.error('line ' + i);
      process.exitCode = 3;
    } else setInterval(() => {}, 1000)`;
    const { error } = await tryCode(code);
    const hint = `Its last lines:\n${Array.from({ length: 20 }, (_, i) => `line ${i + 10}`).join('\n')}`;
    expect(error).toMatchObject({ code: 'COMM', op: 'launch', actual: 'rank 1 that ended with exit code 3', hint });
  });

  it('blames the rank that a signal killed, not those that failed of it', async () => {
    const code = `if (process.env.RANK === '1') setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);
      else setTimeout(() => process.exit(1), 0)`;
    const { error } = await tryCode(code);
    const actual = 'rank 1 killed by signal 9 (SIGKILL), likely out of memory';
    expect(error).toMatchObject({ code: 'COMM', actual, hint: 'It wrote nothing to stderr' });
  });

  it('kills ranks that do not listen, and what they have started', async () => {
    const code = `process.on('SIGTERM', () => {});
      if (process.env.RANK === '1') setTimeout(() => process.exit(1), 300);
      else {
        const child = require('node:child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'inherit' });
        console.log(child.pid);
        setInterval(() => {}, 1000);
      }`;
    const { lines, error } = await tryCode(code, { graceMs: 200 });
    expect(error).toMatchObject({ actual: 'rank 1 that ended with exit code 1' });
    const grandchild = Number(lines[0]!.text);
    // It may be a zombie for the moment that its new parent needs.
    for (let i = 0; i < 100 && isAlive(grandchild); i++) await new Promise((resolve) => setTimeout(resolve, 100));
    expect(isAlive(grandchild)).toBe(false);
  }, 20_000);

  it('ends a job that takes longer than it may', async () => {
    const { error } = await tryCode(`if (process.env.RANK === '1') setInterval(() => {}, 1000)`, { timeoutMs: 3000 });
    expect(error).toMatchObject({ code: 'COMM_TIMEOUT', actual: 'rank 1 still at work' });
  });

  it('ends a job when its signal is aborted', async () => {
    const controller = new AbortController();
    const onLine = () => controller.abort();
    const code = `console.log('here'); setInterval(() => {}, 1000)`;
    const { error } = await tryCode(code, { signal: controller.signal, onLine });
    expect(error).toMatchObject({ code: 'ABORTED' });
    expect((await tryCode(code, { signal: controller.signal })).error).toMatchObject({ code: 'ABORTED' });
  });

  it('says what it cannot start', async () => {
    const { error } = await tryCode('', { command: ['/no/such/program'] });
    expect(error).toMatchObject({ code: 'COMM', expected: 'to start /no/such/program' });
  });

  it.each([
    [{ world: 0 }, '1 to 256 ranks for world'],
    [{ world: 1.5 }, '1 to 256 ranks for world'],
    [{ script: rankProgram('hello') }, 'either script or command'],
  ])('refuses %j', async (options, expected) => {
    const { error } = await tryCode('', options);
    expect(error).toMatchObject({ code: 'CONFIG', expected });
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
