/** The command line itself: help, versions, errors and exit codes. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { ds } from '../test-support/ds';
import { catalog } from './catalog';

describe('ds', () => {
  it('helps without loading a single other package of ours', () => {
    const built = path.join(__dirname, '..', 'dist', 'main.js');
    const script = `require(${JSON.stringify(built)}).main(['--help']).then(() => console.error(Object.keys(require.cache).join('\\n')))`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    for (const { name, summary } of catalog) expect(stdout.replace(/\s+/g, ' ')).toContain(`${name} ${summary}`);
    const loaded = stderr.split('\n').filter((file) => /packages\/(?!cli\/)|\.node$/.test(file));
    expect(loaded).toEqual([]);
  });

  it.each(catalog.map(({ name }) => name))('%s --help shows examples', async (name) => {
    const { stdout, exitCode } = await ds([name, '--help']);
    expect([exitCode, stdout]).toEqual([0, expect.stringContaining('Examples:')]);
  });

  it('prints its version', async () => {
    expect(await ds(['--version'])).toMatchObject({ exitCode: 0, stdout: '0.1.0\n' });
  });

  it.each([
    [['frob', '--json'], 'USAGE', "unknown command 'frob'"],
    [['plann', '--json'], 'USAGE', "unknown command 'plann'"],
    [['plan', '--stage', '4', '--json'], 'USAGE', "'4' is invalid"],
    [['plan', '--json'], 'USAGE', 'give either --model or --params'],
    [['plan', '--model', 'bloom', '--params', '1', '--json'], 'USAGE', 'give either --model or --params'],
    [['train', '--json'], 'USAGE', "missing required argument 'config'"],
    [['train', 'c.json', '--frob', '--json'], 'USAGE', "unknown option '--frob'"],
    [['train', '/nowhere.json', '--json'], 'CONFIG', 'a config without problems'],
    [['plan', '--model', 'bloom-9b', '--json'], 'CONFIG', 'a folder, a config.json or a preset'],
  ])('%j is refused with exit code 2, as JSON on stdout', async (args, code, message) => {
    const { stdout, stderr, exitCode } = await ds(args);
    expect([exitCode, stderr]).toEqual([2, '']);
    const { error } = JSON.parse(stdout);
    expect(error).toEqual({ code, message: expect.stringContaining(message), hint: expect.stringMatching(/\S/) });
  });

  it('tells people about an error on stderr, with what to do', async () => {
    const { stdout, stderr, exitCode } = await ds(['plan', '--model', 'bloom-9b']);
    expect([exitCode, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^CONFIG model: expected a folder.*\n {2}No such path\. Presets: bloom, /);
  });

  it('suggests the command that was meant', async () => {
    expect((await ds(['plann'])).stderr).toContain('Did you mean plan?');
  });

  it('fails with exit code 1 where the command line was right', async () => {
    const { stdout, exitCode } = await ds(['report', '/nowhere', '--json']);
    expect([exitCode, JSON.parse(stdout).error.code]).toEqual([1, 'IO']);
  });
});

describe('ds doctor', () => {
  it('says what is there, what is used and why not more', async () => {
    const { stdout, exitCode } = await ds(['doctor', '--json']);
    expect(exitCode).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      healthy: true,
      node: process.versions.node,
      cpu: { isa: expect.any(String) },
      threads: expect.any(Number),
      memory: { total_bytes: expect.any(Number) },
      cuda: { kernels: expect.any(Boolean), library: expect.stringMatching(/ds-core-cuda/) },
    });
    const names = report.findings.map(({ name }: { name: string }) => name);
    expect(names).toEqual(expect.arrayContaining(['node', 'native addon', 'cpu', 'threads', 'memory', 'cuda', 'nccl']));
    // Found, or the files that were tried.
    const nccl = report.findings.find(({ name }: { name: string }) => name === 'nccl');
    expect(nccl.chosen ?? nccl.why).toMatch(/nccl/i);
    const cuda = report.findings.find(({ name }: { name: string }) => name === 'cuda');
    // Where the emulated GPU was built, the tests have it.
    expect(cuda).toMatchObject(
      report.cuda.kernels
        ? {
            status: 'good',
            chosen: expect.stringContaining('cuda:0 (CUDA emulated'),
            why: expect.stringContaining('for tests'),
          }
        : { chosen: 'cpu', why: expect.stringContaining('everything runs on the CPU') },
    );
  });

  it('lists the same for people', async () => {
    const { stdout } = await ds(['doctor']);
    expect(stdout).toMatch(/ok.* node +Node \d+/);
    expect(stdout).toMatch(/uses (cpu: .*everything runs on the CPU|cuda:0 )/);
  });
});
