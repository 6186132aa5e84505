/** Checks the C++ and CUDA sources against .clang-format (`--write`: formats them), with the clang-format that npm pins. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { outputOf, root, shown } from '../programs.mjs';

const sources = ['packages/*/csrc/**', 'test/**'].flatMap((folder) =>
  ['h', 'cpp', 'cu', 'cuh'].map((extension) => `${folder}/*.${extension}`),
);

/** Tracked and new files; what git ignores is nobody's source. */
function files() {
  const listed = outputOf('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', ...sources]);
  const deleted = new Set(outputOf('git', ['ls-files', '-z', '--deleted']).split('\0'));
  return listed.split('\0').filter((file) => file && !deleted.has(file));
}

const write = process.argv.includes('--write');
const list = files();
if (list.length === 0) {
  console.error('clang-format: no source found; is this a git checkout?');
  process.exit(1);
}
// The package holds x64 binaries only (which Apple's arm64 machines can run).
if (process.platform === 'linux' && process.arch !== 'x64') {
  console.error(`clang-format: skipped, the npm package has no binary for linux-${process.arch}`);
  process.exit(0);
}
const clangFormat = path.join(root, 'node_modules/clang-format/index.js');
const mode = write ? ['-i'] : ['--dry-run', '--Werror'];
const { status, stderr } = spawnSync(process.execPath, [clangFormat, ...mode, ...list], {
  cwd: root,
  encoding: 'utf8',
});
if (status !== 0) {
  const wrong = new Set([...stderr.matchAll(/^([^\s:][^:\n]*):\d+:\d+: error: code should be/gm)].map((m) => m[1]));
  for (const file of wrong) console.error(`clang-format: ${shown(path.resolve(root, file))} is not formatted`);
  console.error(wrong.size > 0 ? 'clang-format: npm run format' : stderr);
  process.exit(1);
}
