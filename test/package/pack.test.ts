/**
 * Packs every package as it would be published and installs the tarballs, without scripts, into an empty project that
 * has node, npm and sh on its PATH and nothing else: what a person without a compiler gets.
 *
 * Each file of programs/ is then run in that project and must end well. To prove more of the product there, add a
 * program; it may `require` any package of ours, and its folder is its own to write to.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.resolve(__dirname, '../..');
const programs = path.join(__dirname, 'programs');
const packages = readdirSync(path.join(root, 'packages')).filter((name) =>
  existsSync(path.join(root, 'packages', name, 'package.json')),
);

const MOST_BYTES_UNPACKED = 60e6;
const MOST_IMPORT_CPU_MS = 150;
const INSTALL_TIMEOUT_MS = 300_000;
/** Scripts that npm runs, or offers to run, when somebody installs a package. */
const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall', 'prepublish', 'preprepare', 'prepare', 'postprepare'];

interface Packed {
  name: string;
  filename: string;
  unpackedSize: number;
  files: { path: string }[];
}

let work: string;
let project: string;
let packed: Packed[];
let bareEnvironment: NodeJS.ProcessEnv;

/** Finds npm's own program, so that it can be started without a PATH that holds more than it. */
function npmProgram(): string {
  const found = execFileSync('sh', ['-c', 'readlink -f "$(command -v npm)"'], { encoding: 'utf8' }).trim();
  return found.endsWith('.js')
    ? found
    : path.join(execFileSync('npm', ['root', '-g'], { encoding: 'utf8' }).trim(), 'npm/bin/npm-cli.js');
}

/** Makes a folder that holds node, npm and sh, as the whole PATH of what is run in the project. */
function makeBarePath(): string {
  const folder = path.join(work, 'bin');
  mkdirSync(folder);
  symlinkSync(process.execPath, path.join(folder, 'node'));
  symlinkSync('/bin/sh', path.join(folder, 'sh'));
  writeFileSync(path.join(folder, 'npm'), `#!/bin/sh\nexec "${process.execPath}" "${npmProgram()}" "$@"\n`, {
    mode: 0o755,
  });
  return folder;
}

function inProject(program: string, args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: project,
    env: bareEnvironment,
    encoding: 'utf8',
    timeout: INSTALL_TIMEOUT_MS,
  });
  return { status, stdout: stdout ?? '', stderr: `${stderr ?? ''}${error?.message ?? ''}` };
}

function runNode(...args: string[]): string {
  const { status, stdout, stderr } = inProject('node', args);
  if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}\n${stdout}${stderr}`);
  return stdout.trim();
}

beforeAll(() => {
  work = mkdtempSync(path.join(tmpdir(), 'ds-pack-'));
  project = path.join(work, 'project');
  mkdirSync(project);
  execFileSync(process.execPath, [path.join(root, 'tools/native/prebuild.mjs')], { stdio: 'pipe' });
  const workspaces = packages.flatMap((name) => ['--workspace', `packages/${name}`]);
  const listing = execFileSync(
    process.execPath,
    [npmProgram(), 'pack', '--json', '--ignore-scripts', '--pack-destination', work, ...workspaces],
    { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
  );
  packed = JSON.parse(listing) as Packed[];
  // What npm needs to reach its registry from here (certificates, a proxy) stays; what the outer npm, jest or the build
  // have set does not.
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|DS_|NODE_OPTIONS|NODE_ENV|JEST_|TURBO_)/.test(name),
  );
  bareEnvironment = {
    ...Object.fromEntries(kept),
    PATH: makeBarePath(),
    PREBUILDS_ONLY: '1',
    npm_config_update_notifier: 'false',
  };
  writeFileSync(path.join(project, 'package.json'), JSON.stringify({ name: 'empty', private: true }));
  const tarballs = packed.map(({ filename }) => path.join(work, path.basename(filename)));
  const install = inProject('npm', [
    'install',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    ...tarballs,
  ]);
  if (install.status !== 0)
    throw new Error(`npm install ended with ${install.status}\n${install.stdout}${install.stderr}`);
}, INSTALL_TIMEOUT_MS);

afterAll(() => rmSync(work, { recursive: true, force: true }));

it('packs every package, and no file that would make npm build something', () => {
  expect(packed.map(({ name }) => name).sort()).toEqual(packages.map((name) => `@ds/${name}`).sort());
  for (const { name, files } of packed) {
    const manifest = JSON.parse(readFileSync(path.join(project, 'node_modules', name, 'package.json'), 'utf8')) as {
      scripts?: Record<string, string>;
    };
    expect({ name, scripts: INSTALL_SCRIPTS.filter((script) => script in (manifest.scripts ?? {})) }).toEqual({
      name,
      scripts: [],
    });
    expect(files.map((file) => file.path).filter((file) => /binding\.gyp$|\.test\.|(^|\/)csrc\//.test(file))).toEqual(
      [],
    );
    expect(files.map((file) => file.path)).toContain('dist/index.js');
  }
});

it('ships one binary for this platform, and it is the one that is loaded', () => {
  const core = packed.find(({ name }) => name === '@ds/core-native')!;
  const binaries = core.files.map((file) => file.path).filter((file) => file.endsWith('.node'));
  const folder = `prebuilds/${process.platform}-${process.arch}/`;
  expect(binaries.filter((file) => file.startsWith(folder))).toHaveLength(1);
  const loaded = runNode(
    '-p',
    "require('@ds/core-native'); process.report.getReport().sharedObjects.filter((f) => f.endsWith('.node')).join()",
  );
  expect(loaded).toBe(
    path.join(project, 'node_modules/@ds/core-native', binaries.find((file) => file.startsWith(folder))!),
  );
});

it('keeps all packages together within 60 MB unpacked', () => {
  const bytes = packed.reduce((sum, { unpackedSize }) => sum + unpackedSize, 0);
  expect(bytes).toBeLessThanOrEqual(MOST_BYTES_UNPACKED);
});

it('finds no compiler on the PATH of the project, or this file would prove nothing', () => {
  for (const program of ['g++', 'c++', 'cc', 'cmake', 'make', 'python3'])
    expect(inProject('sh', ['-c', `command -v ${program}`]).stdout).toBe('');
});

describe.each(packages)('@ds/%s', (name) => {
  it('gives the same names to require and to import', () => {
    // What Node itself adds when it shows a CommonJS module as an ECMAScript one.
    const list =
      "Object.keys(ds).filter((k) => !['default', 'module.exports', '__esModule'].includes(k)).sort().join()";
    const required = runNode('-e', `const ds = require('@ds/${name}'); console.log(${list})`);
    const imported = runNode('--input-type=module', '-e', `import * as ds from '@ds/${name}'; console.log(${list})`);
    expect(imported).toBe(required);
  });

  it('costs at most 150 ms of CPU to load, in the best of five', () => {
    const measure = `const before = process.cpuUsage(); require('@ds/${name}'); const { user, system } = process.cpuUsage(before); console.log((user + system) / 1000)`;
    const best = Math.min(...Array.from({ length: 5 }, () => Number(runNode('-e', measure))));
    expect(best).toBeLessThanOrEqual(MOST_IMPORT_CPU_MS);
  });
});

it('links the command ds', () => {
  const { status, stdout, stderr } = inProject('node', ['node_modules/.bin/ds', '--version']);
  expect({ status, stdout, stderr }).toEqual({
    status: 0,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    stderr: '',
  });
});

it.each(readdirSync(programs).sort())(
  'runs %s in the project',
  (program) => {
    const folder = path.join(project, path.parse(program).name);
    mkdirSync(folder);
    copyFileSync(path.join(programs, program), path.join(folder, program));
    runNode(path.join(folder, program));
  },
  INSTALL_TIMEOUT_MS,
);
