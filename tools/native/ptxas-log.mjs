/**
 * What CMake runs nvcc through: node ptxas-log.mjs nvcc … -o OBJECT. Passes everything on, but for what ptxas says of
 * registers and spills: that goes into OBJECT.ptxas, for build-cuda.mjs, and not past the warnings that matter.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const [program, ...args] = process.argv.slice(2);
const { status, stderr, error } = spawnSync(program, args, {
  stdio: ['inherit', 'inherit', 'pipe'],
  encoding: 'utf8',
  maxBuffer: 2 ** 28,
});
const said = (stderr ?? '').split('\n');
const isInfo = (line) => /^ptxas info|^\s+\d+ bytes stack frame/.test(line);
const rest = said.filter((line) => !isInfo(line)).join('\n');
process.stderr.write(error ? `${error.message}\n` : rest.trim() ? rest : '');
const object = args[args.indexOf('-o') + 1];
if (status === 0 && object?.endsWith('.o')) writeFileSync(`${object}.ptxas`, said.filter(isInfo).join('\n'));
process.exitCode = status ?? 1;
