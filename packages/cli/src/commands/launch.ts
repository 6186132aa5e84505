/** ds launch: runs a script on N ranks of this machine. */
import path = require('node:path');

import { DsError, launch, type RankLine } from '@ds/core-native';
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { parseCount, parsePositive } from '../terminal/arguments';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';

interface LaunchFlags extends OutputOptions {
  readonly world: number;
  readonly threads?: number;
  readonly timeout?: number;
}

const help = `
Every rank runs the script with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and DS_NUM_THREADS set, and joins the others by
  const group = await ProcessGroup.fromEnvironment();
With GPUs, device('cuda') is the rank's own, number LOCAL_RANK, and the group moves its tensors by NCCL.
A file that is no JavaScript is run as a program. The first rank that fails ends the others, and says why.
Ctrl-C is passed on to the ranks; a second one ends them at once. No rank outlives the launcher.

Examples:
  $ ds launch -n 4 train.js --my-own-option
  $ ds launch -n 2 --timeout 60 check.mjs
`;

export function register(program: Command): void {
  const command = program.command('launch').description(summaryOf('launch'));
  command
    .argument('<script>', 'a JavaScript file')
    .argument('[args...]', 'for the script')
    .option('-n, --world <n>', 'ranks', parseCount, 1)
    .option('--threads <n>', 'threads of each rank; default: the cores cut evenly', parseCount)
    .option('--timeout <seconds>', 'end the job after this time', parsePositive)
    .passThroughOptions();
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((script: string, args: string[], flags: LaunchFlags) => run(script, args, flags));
}

async function run(script: string, args: readonly string[], flags: LaunchFlags): Promise<void> {
  const output = outputOf(flags);
  const { world, threads, timeout } = flags;
  const result = await launch({
    world,
    ...programOf(script),
    args,
    ...(threads === undefined ? {} : { threadsPerRank: threads }),
    ...(timeout === undefined ? {} : { timeoutMs: timeout * 1000 }),
    onLine: (line) => printLine(line, world, output),
  });
  output.line({ world, ranks: result.ranks, interrupted: result.interrupted });
}

/** Which program the ranks run. @throws UNSUPPORTED for TypeScript that this Node cannot run */
function programOf(script: string): { script: string } | { command: [string] } {
  const extension = path.extname(script);
  const typeScript = ['.ts', '.mts', '.cts'].includes(extension);
  if (typeScript && !('typescript' in process.features && process.features.typescript))
    throw new DsError({
      code: 'UNSUPPORTED',
      op: 'launch',
      expected: 'a Node that runs TypeScript (22.18 or newer)',
      actual: `${script} on Node ${process.versions.node}`,
      hint: 'Compile it first (tsc), and launch the .js file.',
    });
  return typeScript || ['.js', '.mjs', '.cjs'].includes(extension) ? { script } : { command: [script] };
}

/** Under --json stdout is ours alone: what ranks print goes to stderr. */
function printLine({ rank, stream, text }: RankLine, world: number, output: Output): void {
  const line = world === 1 ? `${text}\n` : `${output.colors.dim(`[${rank}]`)} ${text}\n`;
  process[output.json ? 'stderr' : stream].write(line);
}
