/**
 * node tools/gpu-check/pack.mjs [--out gpu-check-bundle] [--archs '80-real;90-real;100'] [--no-cuda] [--no-build] [--level 6]
 *
 * Makes the folder that a machine with a GPU needs for the check, and nothing else: Node, our packages with what they depend on,
 * the addon, the CUDA library for the architectures named (`--no-cuda`: compiled there), kernels' sources, cases, benches and
 * golden files. run.sh in it unpacks and starts. `--no-build` packs what is built already; `--level` is xz's.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { currentCommit } from '../bench/machine.mjs';
import { findNvcc } from '../bench/nvcc.mjs';
import { generator } from '../native/build.mjs';
import { findProgram, outputOf, root, run, shown } from '../programs.mjs';

const MOST_BYTES = 60 * 2 ** 20;
/** Ubuntu 22.04's and later. */
const MOST_GLIBC = '2.35';
/** In the order of their dependencies. The command and its pages are not checked here. */
const packages = ['core-native', 'io', 'nn', 'zero', 'inference'];
const sources = [
  'tools/bench',
  'tools/gpu-check',
  'tools/programs.mjs',
  'test/ops',
  'test/support',
  'test/golden/bloom-tiny',
  'packages/core-native/csrc',
  ...packages.map((name) => `packages/${name}/package.json`),
];
const core = path.join(root, 'packages/core-native');
const addon = path.join(core, 'build/Release/ds-core-native.node');
const cudaLibrary = path.join(core, 'build-cuda/ds-core-cuda.so');
const kernelTests = path.join(core, 'build-cuda-test/kernels');
const require = createRequire(import.meta.url);

async function step(what, program, ...args) {
  if ((await run(program, args, { stdio: ['ignore', 'inherit', 'inherit'] })) !== 0) throw new Error(`${what} failed`);
}

async function build({ cuda, archs }) {
  await step('the build', 'npm', 'run', 'build');
  const folder = path.dirname(kernelTests);
  await step('cmake', 'cmake', '-S', path.join(root, 'test/cuda/native'), '-B', folder, '-G', generator());
  await step('the build of the native tests', 'cmake', '--build', folder, '--target', 'kernels');
  if (cuda)
    await step(
      'nvcc',
      process.execPath,
      path.join(root, 'tools/native/build-cuda.mjs'),
      ...(archs ? ['--archs', archs] : []),
    );
}

/** Copies a program or library without its symbols. */
function copyStripped(from, to) {
  mkdirSync(path.dirname(to), { recursive: true });
  cpSync(from, to, { dereference: true });
  if (findProgram('strip')) outputOf('strip', ['--strip-unneeded', to]);
  expectGlibc(to);
}

/** A binary that asks for a newer C library than the machine has would be found out only there. */
function expectGlibc(file) {
  const wanted = outputOf('objdump', ['-T', file]).match(/GLIBC_[\d.]+/g) ?? [];
  const newest = wanted
    .map((name) => name.slice(6))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .at(-1);
  if (newest?.localeCompare(MOST_GLIBC, 'en', { numeric: true }) > 0)
    throw new Error(
      `${path.basename(file)} needs glibc ${newest}, more than ${MOST_GLIBC}: build it on an older system`,
    );
}

/** The packages of other people that ours need at run time, with their own. */
function dependencies() {
  const found = new Set();
  const visit = (file) => {
    for (const name of Object.keys(JSON.parse(readFileSync(file, 'utf8')).dependencies ?? {})) {
      if (name.startsWith('@ds/') || found.has(name)) continue;
      found.add(name);
      visit(path.join(root, 'node_modules', name, 'package.json'));
    }
  };
  for (const name of packages) visit(path.join(root, 'packages', name, 'package.json'));
  return [...found];
}

/** Compiles TypeScript in place: what loads it there has no compiler. */
function compileSources(tree) {
  const { transformSync } = require('@swc/core');
  const options = {
    swcrc: false,
    jsc: { parser: { syntax: 'typescript' }, target: 'es2022' },
    module: { type: 'commonjs' },
  };
  for (const folder of ['test/ops', 'test/support', 'packages/core-native/csrc'])
    for (const file of readdirSync(path.join(tree, folder), { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.ts')) continue;
      const full = path.join(tree, folder, file);
      writeFileSync(full, transformSync(readFileSync(full, 'utf8'), { ...options, filename: full }).code);
    }
  cpSync(path.join(root, 'tools/gpu-check/compiled-hook.cjs'), path.join(tree, 'tools/typescript-hook.cjs'));
}

/** Puts together what the archive holds. */
function fill(tree, { cuda }) {
  // Files that are new and not ignored belong to the work in progress.
  const files = outputOf('git', ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...sources]).split(
    '\n',
  );
  for (const file of files) cpSync(path.join(root, file), path.join(tree, file));
  compileSources(tree);
  for (const name of packages) {
    const filter = (file) => !/\.(map|d\.ts)$|\.test\./.test(file);
    cpSync(path.join(root, 'packages', name, 'dist'), path.join(tree, 'packages', name, 'dist'), {
      recursive: true,
      filter,
    });
    mkdirSync(path.join(tree, 'node_modules/@ds'), { recursive: true });
    symlinkSync(`../../packages/${name}`, path.join(tree, 'node_modules/@ds', name));
  }
  for (const name of dependencies())
    cpSync(path.join(root, 'node_modules', name), path.join(tree, 'node_modules', name), {
      recursive: true,
      filter: (file) => !/\.(map|d\.[cm]?ts)$/.test(file),
    });
  for (const file of [addon, kernelTests].filter((each) => existsSync(each)))
    copyStripped(file, path.join(tree, path.relative(root, file)));
  if (cuda) copyStripped(cudaLibrary, path.join(tree, path.relative(root, addon), '../ds-core-cuda.so'));
  copyStripped(process.execPath, path.join(tree, 'node'));
  writeFileSync(
    path.join(tree, 'bundle.json'),
    `${JSON.stringify({ commit: currentCommit(), node: process.version, cuda })}\n`,
  );
}

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: path.join(root, 'gpu-check-bundle') },
    archs: { type: 'string' },
    'no-cuda': { type: 'boolean', default: false },
    'no-build': { type: 'boolean', default: false },
    level: { type: 'string', default: '6' },
  },
});
const tree = mkdtempSync(path.join(tmpdir(), 'ds-gpu-check-tree-'));
try {
  const cuda = !values['no-cuda'] && findNvcc() !== undefined;
  if (!values['no-build']) await build({ cuda, archs: values.archs });
  const missing = [addon, ...(cuda ? [cudaLibrary] : [])].filter((file) => !existsSync(file));
  if (missing.length > 0) throw new Error(`${missing.map(shown).join(', ')} not built: leave --no-build out`);
  if (!existsSync(kernelTests))
    console.error(`pack: ${shown(kernelTests)} is not built: the check will skip the native tests`);
  fill(tree, { cuda });
  const out = path.resolve(values.out);
  mkdirSync(out, { recursive: true });
  const archive = path.join(out, 'tree.tar.xz');
  await step(
    'tar',
    'tar',
    '--use-compress-program',
    `xz -T0 -${values.level}`,
    '--owner=0',
    '--group=0',
    '-cf',
    archive,
    '-C',
    tree,
    '.',
  );
  cpSync(path.join(root, 'tools/gpu-check/run.sh'), path.join(out, 'run.sh'));
  const bytes = readdirSync(out).reduce((sum, file) => sum + statSync(path.join(out, file)).size, 0);
  const size = `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  console.log(
    `pack: ${shown(out)}, ${size}, ${cuda ? 'with the CUDA library' : 'without a CUDA library, which is compiled on the GPU machine'}`,
  );
  if (bytes > MOST_BYTES)
    throw new Error(`${size} is more than ${MOST_BYTES / 2 ** 20} MiB: pack with fewer --archs, or --no-cuda`);
} catch (error) {
  console.error(`pack: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(tree, { recursive: true, force: true });
}
