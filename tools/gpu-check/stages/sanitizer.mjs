/** compute-sanitizer's memcheck, racecheck and synccheck over a few small cases of every op, the three at once. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNvcc } from '../../bench/nvcc.mjs';
import { findProgram } from '../../programs.mjs';
import { recordCheck } from '../record.mjs';
import { stageArguments } from '../stage-arguments.mjs';

const FOUND = 86;

const { out } = stageArguments();
const cases = fileURLToPath(new URL('cases.mjs', import.meta.url));
const beside = findNvcc() && path.join(path.dirname(findNvcc()), 'compute-sanitizer');
const program = findProgram('compute-sanitizer') ?? (beside && existsSync(beside) ? beside : undefined);

function check(tool) {
  const args = [
    '--tool',
    tool,
    '--error-exitcode',
    String(FOUND),
    '--print-limit',
    '20',
    process.execPath,
    cases,
    '--out',
    out,
    '--small',
  ];
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  const hear = (text) => {
    said = `${said}${text}`.slice(-20_000);
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  return new Promise((resolve) => {
    child.on('close', (code) => {
      const summary = /ERROR SUMMARY: .*|RACECHECK SUMMARY: .*/.exec(said)?.[0] ?? '';
      const told = said
        .split('\n')
        .filter((line) => line.startsWith('========='))
        .slice(0, 12)
        .join(' ');
      if (code === 0 && summary) recordCheck(out, 'sanitizer', tool, 'passed', summary);
      else
        recordCheck(
          out,
          'sanitizer',
          tool,
          'failed',
          `${summary || `ended with status ${code} and no summary`}. ${told || said.slice(-1000)}`,
        );
      process.stderr.write(said);
      resolve();
    });
  });
}

if (!program)
  recordCheck(out, 'sanitizer', 'compute-sanitizer', 'skipped', "is not installed (it comes with CUDA's toolkit)");
else await Promise.all(['memcheck', 'racecheck', 'synccheck'].map(check));
