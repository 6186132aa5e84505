/**
 * `npm run build:cuda [-- --archs 90-real]`: compiles every kernel with nvcc, GPU or not, for all architectures unless some
 * are named, into packages/core-native/build-cuda, and writes what each kernel needs of registers, shared memory and spills
 * to cuda-report.md there. Needs nothing of Node's, no addon.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findProgram, outputOf, root, run, shown } from '../programs.mjs';
import { generator } from './build.mjs';

/** Gives [{kernel, arch, registers, shared, spills}] of one log of ptxas -v. */
function readLog(text) {
  const rows = [];
  for (const line of text.split('\n')) {
    const entry = /Compiling entry function '(.+)' for '(.+)'/.exec(line);
    if (entry) rows.push({ kernel: entry[1], arch: entry[2], registers: 0, shared: 0, spills: 0 });
    const row = rows.at(-1);
    const spills = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (row && spills) row.spills += Number(spills[1]) + Number(spills[2]);
    const used = /Used (\d+) registers/.exec(line);
    if (row && used) {
      row.registers = Number(used[1]);
      row.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
    }
  }
  return rows;
}

/** Shortens a demangled kernel to its name, template arguments and no parameters. */
function readable(names) {
  const demangled = outputOf('c++filt', ['-p'], { input: names.join('\n') }).split('\n');
  if (demangled.length !== names.length) return names;
  return demangled.map((name) =>
    name
      .replace(/^void /, '')
      .replace(/\(anonymous namespace\)::|ds::cuda::|ds::/g, '')
      .replace(/\((int|bool)\)/g, ''),
  );
}

function report(rows) {
  const archs = [...new Set(rows.map((row) => row.arch))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const kernels = [...new Set(rows.map((row) => row.kernel))];
  const names = readable(kernels);
  const cell = (kernel, arch) => {
    const row = rows.find((r) => r.kernel === kernel && r.arch === arch);
    return row ? `${row.registers}${row.spills > 0 ? ` (spills ${row.spills} B)` : ''}` : '';
  };
  const lines = kernels.map((kernel, i) => {
    const shared = Math.max(...rows.filter((row) => row.kernel === kernel).map((row) => row.shared));
    return `| \`${names[i]}\` | ${archs.map((arch) => cell(kernel, arch)).join(' | ')} | ${shared} |`;
  });
  const spilling = new Set(rows.filter((row) => row.spills > 0).map((row) => row.kernel)).size;
  const summary = `${kernels.length} kernels, ${spilling} of them spill registers`;
  const head = `| kernel | ${archs.map((a) => `registers, ${a}`).join(' | ')} | static shared memory, bytes |`;
  return {
    summary,
    text: `${summary}.\n\n${head}\n|---|${'---:|'.repeat(archs.length + 1)}\n${lines.sort().join('\n')}\n`,
  };
}

/** Compiles and gives the folder. @throws Error when a compiler says no; it has printed why */
async function compile(archs) {
  const folder = path.join(root, 'packages/core-native/build-cuda');
  const launcher = `${process.execPath};${fileURLToPath(new URL('ptxas-log.mjs', import.meta.url))}`;
  const nvcc = findProgram('nvcc') ?? path.join(process.env.CUDA_HOME ?? '/usr/local/cuda', 'bin/nvcc');
  const options = [`-DCMAKE_CUDA_COMPILER=${nvcc}`, `-DDS_CUDA_LAUNCHER=${launcher}`];
  if (archs) options.push(`-DCMAKE_CUDA_ARCHITECTURES=${archs}`);
  rmSync(path.join(folder, 'CMakeCache.txt'), { force: true }); // or the last call's architectures would stay
  const source = path.join(root, 'packages/core-native/csrc/cuda');
  const configured = await run('cmake', ['-S', source, '-B', folder, '-G', generator(), ...options]);
  if (configured !== 0) throw new Error('it could not be configured');
  if ((await run('cmake', ['--build', folder, '--parallel'])) !== 0) throw new Error('nvcc failed');
  return folder;
}

const { values } = parseArgs({ options: { archs: { type: 'string' } } });
try {
  const folder = await compile(values.archs);
  const objects = path.join(folder, 'CMakeFiles/ds_cuda.dir');
  const logs = readdirSync(objects, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ptxas'));
  const { summary, text } = report(logs.flatMap((file) => readLog(readFileSync(path.join(objects, file), 'utf8'))));
  const target = path.join(folder, 'cuda-report.md');
  writeFileSync(target, text);
  console.log(`build:cuda: ${summary}; see ${shown(target)}`);
} catch (error) {
  console.error(`build:cuda: ${error.message}`);
  process.exitCode = 1;
}
