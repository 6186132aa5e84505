/**
 * Checks that package-lock.json names every optional platform package (`--write`: adds the ones that are missing).
 *
 * npm leaves a platform's binary out of the lock when the registry in use does not carry it, and `npm ci` then refuses
 * the lock on every machine. The entry that npm would have written for a foreign platform says version, os and cpu;
 * that is all `npm ci` needs in order to skip it there.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root } from '../programs.mjs';

const systems = { windows: 'win32', win32: 'win32', darwin: 'darwin', linux: 'linux', android: 'android' };
const processors = { 64: 'x64', x64: 'x64', arm64: 'arm64', arm: 'arm', ia32: 'ia32' };
const rare = ['freebsd', 'openharmony', 'ppc64', 's390x', 'loong64', 'riscv64'];

/** Reads os, cpu and libc off a name such as `@swc/core-linux-arm-gnueabihf`. */
function platformOf(name) {
  const words = name.split('/').at(-1).split('-');
  const pick = (table) => words.map((word) => table[word] ?? (rare.includes(word) ? word : undefined));
  const os = pick(systems).find((word) => word && (word in systems || /bsd|harmony/.test(word)));
  const cpu = pick(processors).findLast((word) => word && word !== os);
  if (!os || !cpu) throw new Error(`lockfile: cannot read a platform off the name ${name}`);
  const libc = words.some((word) => word.startsWith('musl'))
    ? 'musl'
    : words.some((w) => w.startsWith('gnu'))
      ? 'glibc'
      : undefined;
  return { os: [os], cpu: [cpu], ...(libc && os === 'linux' ? { libc: [libc] } : {}) };
}

/** Finds an entry as Node resolves packages: nested beside the dependent first, then up to the root. */
function isLocked(packages, from, name) {
  for (let folder = from; ; folder = folder.slice(0, folder.lastIndexOf('node_modules/')).replace(/\/$/, '')) {
    if (packages[`${folder ? `${folder}/` : ''}node_modules/${name}`]) return true;
    if (!folder) return false;
  }
}

const file = path.join(root, 'package-lock.json');
const lock = JSON.parse(readFileSync(file, 'utf8'));
const added = {};
for (const [from, entry] of Object.entries(lock.packages))
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {}))
    if (!isLocked(lock.packages, from, name)) {
      if (!/^\d/.test(version)) throw new Error(`lockfile: ${name} is not pinned: ${version}`);
      const { dev, license, engines } = entry;
      added[`node_modules/${name}`] = {
        version,
        ...platformOf(name),
        ...(dev ? { dev } : {}),
        ...(license ? { license } : {}),
        optional: true,
        ...(engines ? { engines } : {}),
      };
    }

const names = Object.keys(added).sort();
if (names.length > 0 && process.argv.includes('--write')) {
  // npm's own order, so that its next write changes nothing else.
  const sorted = Object.entries({ ...lock.packages, ...added }).sort(([a], [b]) => a.localeCompare(b, 'en'));
  writeFileSync(file, `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, null, 2)}\n`);
  console.log(`lockfile: added ${names.length} entries`);
} else if (names.length > 0) {
  for (const name of names) console.error(`lockfile: ${name.slice('node_modules/'.length)} is missing`);
  console.error('lockfile: npm ci would refuse this lock; node tools/lint/lockfile.mjs --write');
  process.exitCode = 1;
}
