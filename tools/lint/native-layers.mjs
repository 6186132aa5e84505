/** The layer rule of csrc: runtime < cuda < kernels/common < kernel families, collectives, aio < binding; Node only in binding. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** Names a file's zone and says what that zone may include besides itself. */
function zoneOf(file) {
  const [first, second] = file.split('/');
  const only = (name, ...zones) => ({ name, may: (other) => zones.includes(other) });
  // The addon opens a CUDA library at run time: it knows runtime/cuda_abi.h and no more.
  if (first === 'binding') return { name: 'binding', may: (other) => other !== 'cuda' };
  if (first === 'runtime') return only('runtime');
  if (first === 'cuda') return only('cuda', 'runtime');
  // The sum of a reducing collective is a kernel.
  if (first === 'collectives') return only('collectives', 'runtime', 'kernels/common', 'kernels/reduce');
  if (first !== 'kernels') return only(first, 'runtime', 'kernels/common');
  const below = /\.cuh?$/.test(file) ? ['runtime', 'cuda'] : ['runtime'];
  return second === 'common' ? only('kernels/common', ...below) : only(`kernels/${second}`, 'kernels/common', ...below);
}

/** Calls that a library inside somebody's process does not make: it prints nothing, ends nothing, reads no environment. */
const sideEffects = [
  [/\b(?:std::)?(?:getenv|secure_getenv|setenv|putenv)\s*\(/, 'reads the environment'],
  [/(?<![\w.>])(?:std::)?(?:printf|puts|putchar)\s*\(|\bstd::cout\b|\bfprintf\s*\(\s*stdout/, 'writes to stdout'],
  [/(?<![\w.>:])(?:std::)?(?:exit|_exit|quick_exit)\s*\(/, 'ends the process'],
];

function checkFile(csrc, file, shown) {
  const found = [];
  const zone = zoneOf(file);
  const text = readFileSync(path.join(csrc, file), 'utf8').replace(/\/\*[\s\S]*?\*\//g, (c) =>
    c.replace(/[^\n]/g, ' '),
  );
  text.split('\n').forEach((raw, i) => {
    const where = `${shown}/${file}:${i + 1}`;
    const line = raw.replace(/\/\/.*$/, '');
    const include = /^\s*#\s*include\s*(["<])([^">]+)[">]/.exec(line);
    if (include && zone.name !== 'binding' && /(^|\/)(napi|node_api|js_native_api|uv|v8|node)\.h$/.test(include[2]))
      found.push(`${where}: includes ${include[2]}; only csrc/binding knows Node`);
    if (include?.[1] === '"') {
      const target = path.posix.join(path.posix.dirname(file), include[2]);
      const to = zoneOf(target).name;
      if (to !== zone.name && !zone.may(to)) found.push(`${where}: ${zone.name} may not include ${target}`);
    }
    const code = raw.replace(/"(?:[^"\\]|\\.)*"/g, '""').replace(/\/\/.*$/, '');
    for (const [pattern, what] of sideEffects)
      if (pattern.test(code)) found.push(`${where}: ${what}; csrc leaves that to TypeScript`);
  });
  return found;
}

/** Gives the violations found in one package's csrc folder, if it has one. */
export function checkNativeSources(csrc, root) {
  if (!existsSync(csrc)) return [];
  const shown = path.relative(root, csrc).split(path.sep).join('/');
  return readdirSync(csrc, { recursive: true, encoding: 'utf8' })
    .map((file) => file.split(path.sep).join('/'))
    .filter((file) => /\.(h|hpp|cpp|cc|cu|cuh)$/.test(file))
    .sort()
    .flatMap((file) => checkFile(csrc, file, shown));
}
