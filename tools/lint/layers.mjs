/**
 * Checks that imports go down only: node tools/lint/layers.mjs [--root DIR]
 *
 * The table below is the architecture (see ARCHITECTURE.md). Besides TypeScript imports it holds `package.json`
 * dependencies, TypeScript project references and the `#include`s of csrc, and warns of files that grow too long.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root as repository } from '../programs.mjs';
import { checkNativeSources } from './native-layers.mjs';

/** A package may import those of a lower level, never a sibling, and only by their public entry `@ds/<name>`. */
const levels = {
  'core-native': 0,
  io: 1,
  nn: 1,
  zero: 2,
  inference: 2,
  moe: 3,
  bloom: 3,
  cli: 4,
};
/** Tests that live outside the package they belong to, because they walk more than its src/. */
const testFolders = { 'test/ops': 'core-native' };
const MOST_LINES = 400;
const SKIPPED = new Set(['node_modules', 'dist', 'build', 'prebuilds', 'golden', 'results', '.git', '.turbo', 'runs']);

const { values } = parseArgs({ options: { root: { type: 'string', default: repository } } });
const root = path.resolve(values.root);
const violations = [];
const warnings = [];

function relative(file) {
  return path.relative(root, file).split(path.sep).join('/');
}

function filesUnder(folder, extensions) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory())
      return SKIPPED.has(entry.name) || entry.name.startsWith('build-') ? [] : filesUnder(full, extensions);
    return extensions.some((extension) => entry.name.endsWith(extension)) ? [full] : [];
  });
}

/** Lists what a module imports, with line numbers; comments are blanked out first, keeping the lines. */
function importsOf(file) {
  const text = readFileSync(file, 'utf8').replace(/(?<=^|[\s({[;,])(?:\/\*[\s\S]*?\*\/|\/\/.*$)/gm, (c) =>
    c.replace(/[^\n]/g, ' '),
  );
  const forms = [
    /^[ \t]*(?:import|export)\b[^;'"`]*?\bfrom\s*['"]([^'"\n]+)['"]/gm,
    /^[ \t]*import\s*['"]([^'"\n]+)['"]/gm,
    /\b(?:require|import|require\.resolve)\s*\(\s*['"]([^'"\n]+)['"]/g,
    /\bimport\(\s*['"]([^'"\n]+)['"]/g,
  ];
  const found = new Map();
  for (const form of forms)
    for (const match of text.matchAll(form)) {
      const at = match.index + match[0].lastIndexOf(match[1]);
      found.set(at, { name: match[1], line: text.slice(0, at).split('\n').length });
    }
  return [...found.values()];
}

function readJson(file) {
  // tsconfig.json may hold comments; ours hold line comments at most.
  return JSON.parse(readFileSync(file, 'utf8').replace(/^\s*\/\/.*$/gm, ''));
}

function packageNameOf(specifier) {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function isTest(file) {
  return /(^|[./])(test|cases)\.[cm]?tsx?$/.test(file) || relative(file).includes('/test-support/');
}

/** Names the package whose src/ a relative import reaches into, or undefined. */
function foreignSource(file, specifier, ownFolder) {
  const target = relative(path.resolve(path.dirname(file), specifier));
  const match = /^packages\/([^/]+)\/src(\/|$)/.exec(target);
  return match && match[1] !== ownFolder ? match[1] : undefined;
}

/** Rules that hold everywhere, in tests, tools and examples too: @ds packages by public entry, no foreign src/. */
function checkAnywhere(file, { name, line }, ownFolder) {
  const where = `${relative(file)}:${line}`;
  if (/^@ds\/[^/]+\/(?!package\.json$)/.test(name))
    violations.push(`${where}: imports ${name}; only the public entry ${packageNameOf(name)} may be imported`);
  if (name.startsWith('.')) {
    const foreign = foreignSource(file, name, ownFolder);
    if (foreign) violations.push(`${where}: imports the source of packages/${foreign}; import @ds/${foreign}`);
    const target = relative(path.resolve(path.dirname(file), name));
    if (target.startsWith('tools/') && !relative(file).startsWith('tools/'))
      violations.push(`${where}: imports ${target}; nobody imports a tool`);
  }
}

function checkPackageImport(file, { name, line }, folder, manifest, used) {
  const where = `${relative(file)}:${line}`;
  const test = isTest(file);
  if (name.startsWith('.')) {
    const target = relative(path.resolve(path.dirname(file), name));
    const inside = target.startsWith(`packages/${folder}/`) || foreignSource(file, name, folder);
    if (!inside && !(test && target.startsWith('test/')))
      violations.push(`${where}: imports ${target}, outside its package`);
    return;
  }
  if (name.startsWith('node:')) return;
  if (builtinModules.includes(name)) {
    violations.push(`${where}: imports ${name}; write node:${name}`);
    return;
  }
  const dependency = packageNameOf(name);
  used.add(dependency);
  const own = dependency === `@ds/${folder}`;
  if (own && test) return; // A test may use its package as people do.
  if (dependency.startsWith('@ds/')) {
    const level = levels[dependency.slice(4)];
    if (level === undefined || level >= levels[folder]) {
      violations.push(
        `${where}: @ds/${folder} (level ${levels[folder]}) may not import ${dependency} (level ${level ?? '?'})`,
      );
      return;
    }
  }
  const known = { ...manifest.dependencies, ...manifest.optionalDependencies, ...manifest.peerDependencies };
  const forTests = { ...manifest.devDependencies, ...rootManifest.devDependencies };
  if (!(dependency in known) && !(test && dependency in forTests))
    violations.push(`${where}: imports ${dependency}, which packages/${folder}/package.json does not list`);
}

/** The package's declared @ds dependencies, its TypeScript references and its level must agree. */
function checkManifest(folder, manifest, used) {
  const where = `packages/${folder}/package.json`;
  const declared = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies }).filter((d) =>
    d.startsWith('@ds/'),
  );
  const isBelow = (dependency) => levels[dependency.slice(4)] < levels[folder];
  for (const dependency of declared)
    if (!isBelow(dependency)) violations.push(`${where}: depends on ${dependency}, which is not below it`);
  for (const dependency of Object.keys(manifest.dependencies ?? {}))
    if (!used.has(dependency)) warnings.push(`${where}: lists ${dependency}, which nothing in src imports`);
  const config = path.join(root, 'packages', folder, 'tsconfig.json');
  if (!existsSync(config)) return;
  const references = (readJson(config).references ?? []).map((r) => `@ds/${path.basename(r.path)}`);
  for (const dependency of declared)
    if (isBelow(dependency) && !references.includes(dependency))
      violations.push(`packages/${folder}/tsconfig.json: lacks a reference to ${dependency}`);
  for (const reference of references)
    if (!declared.includes(reference))
      violations.push(`packages/${folder}/tsconfig.json: references ${reference}, which ${where} does not list`);
}

function checkPackage(folder) {
  if (!(folder in levels)) {
    violations.push(`packages/${folder}: has no level; add it to tools/lint/layers.mjs`);
    return;
  }
  const manifest = readJson(path.join(root, 'packages', folder, 'package.json'));
  const used = new Set();
  for (const file of filesUnder(path.join(root, 'packages', folder), [
    '.ts',
    '.tsx',
    '.mts',
    '.cts',
    '.mjs',
    '.cjs',
    '.js',
  ]))
    for (const found of importsOf(file)) {
      checkAnywhere(file, found, folder);
      checkPackageImport(file, found, folder, manifest, used);
    }
  checkManifest(folder, manifest, used);
}

function warnOfLongFiles() {
  const code = ['.ts', '.mjs', '.cjs', '.cpp', '.h', '.cu', '.cuh'];
  for (const folder of ['packages', 'tools', 'test', 'examples'])
    for (const file of filesUnder(path.join(root, folder), code)) {
      const lines = readFileSync(file, 'utf8').split('\n').length - 1;
      if (lines > MOST_LINES)
        warnings.push(`${relative(file)}: ${lines} lines; more than ${MOST_LINES} are hard to hold in mind`);
    }
}

const rootManifest = existsSync(path.join(root, 'package.json')) ? readJson(path.join(root, 'package.json')) : {};
for (const entry of readdirSync(path.join(root, 'packages'), { withFileTypes: true }))
  if (entry.isDirectory() && existsSync(path.join(root, 'packages', entry.name, 'package.json')))
    checkPackage(entry.name);
for (const folder of ['test', 'tools', 'examples'])
  for (const file of filesUnder(path.join(root, folder), ['.ts', '.mts', '.cts', '.mjs', '.cjs', '.js']))
    for (const found of importsOf(file)) checkAnywhere(file, found, testFolders[path.posix.dirname(relative(file))]);
for (const entry of existsSync(path.join(root, 'packages')) ? readdirSync(path.join(root, 'packages')) : [])
  violations.push(...checkNativeSources(path.join(root, 'packages', entry, 'csrc'), root));
warnOfLongFiles();

for (const warning of warnings) console.error(`layers: warning: ${warning}`);
for (const violation of violations) console.error(`layers: ${violation}`);
if (violations.length > 0) {
  console.error(`layers: ${violations.length} violation${violations.length > 1 ? 's' : ''}`);
  process.exitCode = 1;
}
