/**
 * Makes a machine ready to build: Node, a C++20 compiler, CMake, Ninja or make, OpenBLAS (optional) and node_modules.
 *
 * Installs what is missing where it may (root and a package manager, or Homebrew), else prints the one line to type.
 * Plain Node without dependencies, because it runs before `npm ci`; under a second when everything is there.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram, outputOf, root, run, runQuietly, seconds } from './programs.mjs';

const LEAST_NODE = 20;
const LEAST_CMAKE = '3.22';
/** First major versions whose C++20 is complete enough for csrc. */
const LEAST_COMPILER = { gcc: 10, clang: 13 };
/** A machine without OpenBLAS in its package lists must not pay for the question on every run. */
const RETRY_OPTIONAL_AFTER_MS = 24 * 3600 * 1000;

/** What each package manager calls the things that we need. `install` is run as it is printed. */
const managers = {
  'apt-get': {
    needsRoot: true,
    refresh: ['apt-get', 'update', '-q', '-o', 'DPkg::Lock::Timeout=300'],
    install: ['apt-get', 'install', '-y', '-q', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=300'],
    packages: { compiler: ['g++'], cmake: ['cmake'], ninja: ['ninja-build'], openblas: ['libopenblas-serial-dev'] },
  },
  dnf: {
    needsRoot: true,
    install: ['dnf', 'install', '-y', '--setopt=install_weak_deps=False'],
    packages: {
      compiler: ['gcc-c++'],
      cmake: ['cmake'],
      ninja: ['ninja-build'],
      openblas: ['openblas-devel', 'openblas-static'],
    },
  },
  apk: {
    needsRoot: true,
    install: ['apk', 'add'],
    packages: {
      compiler: ['g++', 'linux-headers'],
      cmake: ['cmake'],
      ninja: ['samurai'],
      openblas: ['openblas-dev', 'openblas-static'],
    },
  },
  brew: {
    needsRoot: false,
    install: ['brew', 'install'],
    packages: { compiler: ['llvm'], cmake: ['cmake'], ninja: ['ninja'], openblas: [] },
  },
};

function versionAtLeast(actual, least) {
  const [a, b] = [actual, least].map((v) => v.split('.').map(Number));
  return a[0] !== b[0] ? a[0] > b[0] : (a[1] ?? 0) >= (b[1] ?? 0);
}

function compilerIsUsable() {
  const program = ['c++', 'g++', 'clang++'].find(findProgram);
  if (!program) return false;
  const version = outputOf(program, ['--version']);
  const kind = /clang/i.test(version) ? 'clang' : 'gcc';
  const major = Number(/(\d+)\.\d+/.exec(version.split('\n')[0] ?? '')?.[1] ?? 0);
  return major >= LEAST_COMPILER[kind];
}

function cmakeIsUsable() {
  const version = findProgram('cmake') && /(\d+\.\d+)/.exec(outputOf('cmake', ['--version']))?.[1];
  return Boolean(version) && versionAtLeast(version, LEAST_CMAKE);
}

/** Looks where CMakeLists.txt looks: a static OpenBLAS, best the serial one, which starts no threads of its own. */
export function openblasIsThere() {
  const folders = ['/usr/lib', '/usr/lib64', '/usr/local/lib'];
  for (const triple of ['x86_64-linux-gnu', 'aarch64-linux-gnu']) folders.push(`/usr/lib/${triple}`);
  return folders.some(
    (folder) =>
      existsSync(path.join(folder, 'openblas-serial/libopenblas.a')) || existsSync(path.join(folder, 'libopenblas.a')),
  );
}

/** Lists what is missing, by the names used in `managers`. */
function missing() {
  const needed = [];
  if (!compilerIsUsable()) needed.push('compiler');
  if (!cmakeIsUsable()) needed.push('cmake');
  if (!findProgram('ninja') && !findProgram('make')) needed.push('ninja');
  // macOS has no serial static OpenBLAS package: our own GEMM does the work there.
  const wanted = process.platform === 'linux' && !openblasIsThere() ? ['openblas'] : [];
  return { needed, wanted };
}

function packageManager() {
  const name = Object.keys(managers).find(findProgram);
  return name && { name, ...managers[name] };
}

function isRoot() {
  return process.getuid?.() === 0;
}

/** Runs the install command; with apt, on a machine without package lists or with old ones, after an update. */
function installPackages(manager, packages) {
  const env = { DEBIAN_FRONTEND: 'noninteractive', HOMEBREW_NO_AUTO_UPDATE: '1' };
  const [program, ...args] = manager.install;
  const install = () => runQuietly(program, [...args, ...packages], { env }) === 0;
  if (!manager.refresh) return install();
  const [refresh, ...refreshArgs] = manager.refresh;
  const lists = '/var/lib/apt/lists';
  const hasLists = existsSync(lists) && readdirSync(lists).some((file) => file.endsWith('_Packages'));
  if (hasLists && install()) return true;
  return runQuietly(refresh, refreshArgs, { env }) === 0 && install();
}

function commandLine(manager, packages) {
  const sudo = manager.needsRoot && !isRoot() ? 'sudo ' : '';
  const refresh = manager.refresh ? `${sudo}${manager.name} update && ` : '';
  return `${refresh}${sudo}${manager.install.filter((word) => !/^-(q|o)$|^DPkg/.test(word)).join(' ')} ${packages.join(' ')}`;
}

const optionalStamp = path.join(root, 'node_modules/.cache/ds-setup/openblas-not-installed');

function triedRecently() {
  return existsSync(optionalStamp) && Date.now() - statSync(optionalStamp).mtimeMs < RETRY_OPTIONAL_AFTER_MS;
}

function installSystemPackages(say) {
  const { needed, wanted } = missing();
  const manager = packageManager();
  const packagesOf = (things) => things.flatMap((thing) => manager?.packages[thing] ?? []);
  const mayInstall = manager && (manager.needsRoot ? isRoot() : !isRoot());

  if (needed.length > 0) {
    if (!manager)
      throw new Error(`missing: ${needed.join(', ')}. Install a C++20 compiler, CMake ${LEAST_CMAKE}+ and Ninja`);
    const packages = [...packagesOf(needed), ...packagesOf(wanted)];
    if (!mayInstall) throw new Error(`missing: ${needed.join(', ')}. Type:\n  ${commandLine(manager, packages)}`);
    say(`installing ${packagesOf(needed).join(' ')} with ${manager.name}`);
    installPackages(manager, packagesOf(needed));
    const left = missing().needed;
    if (left.length > 0)
      throw new Error(
        `missing after the install: ${left.join(', ')}. Try:\n  ${commandLine(manager, packagesOf(left))}`,
      );
  }
  if (wanted.length === 0 || triedRecently()) return;
  const packages = packagesOf(wanted);
  if (mayInstall && packages.length > 0) {
    say(`installing ${packages.join(' ')} with ${manager.name}`);
    if (installPackages(manager, packages) && openblasIsThere()) return;
    mkdirSync(path.dirname(optionalStamp), { recursive: true });
    writeFileSync(optionalStamp, 'An install of OpenBLAS failed at the time of this file. Remove it to try again.\n');
  }
  const how = manager && packages.length > 0 ? `; for the fast one type: ${commandLine(manager, packages)}` : '';
  say(`OpenBLAS not found: matrix products will use the built-in GEMM${how}`);
}

/** Compares what npm recorded in node_modules with package-lock.json. Optional packages of other platforms may be absent. */
function nodeModulesAreCurrent() {
  const recorded = path.join(root, 'node_modules/.package-lock.json');
  if (!existsSync(recorded)) return false;
  const read = (file) => JSON.parse(readFileSync(file, 'utf8')).packages ?? {};
  const have = read(recorded);
  return Object.entries(read(path.join(root, 'package-lock.json'))).every(([where, wanted]) => {
    if (where === '' || (wanted.optional && !have[where])) return true;
    if (wanted.link) return existsSync(path.join(root, where));
    const same = (field) => JSON.stringify(have[where]?.[field]) === JSON.stringify(wanted[field]);
    return same('version') && same('integrity') && same('bin');
  });
}

async function installNodeModules(say) {
  if (nodeModulesAreCurrent()) return;
  say('npm ci');
  const start = Date.now();
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  const status = await run('npm', args);
  if (status !== 0) throw new Error(`npm ci failed with exit code ${status}`);
  say(`npm ci took ${seconds(Date.now() - start)}`);
}

/** Makes the machine ready. @throws Error whose message says what is missing and what to type */
export async function setup(say = (line) => console.error(`setup: ${line}`)) {
  if (Number(process.versions.node.split('.')[0]) < LEAST_NODE)
    throw new Error(`Node ${LEAST_NODE} or newer is needed, this is ${process.versions.node}`);
  installSystemPackages(say);
  await installNodeModules(say);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await setup();
  } catch (error) {
    console.error(`setup: ${error.message}`);
    process.exitCode = 1;
  }
}
