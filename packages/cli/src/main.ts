/** The command `ds`: finds the command that was asked for, loads that one alone, and turns its end into an exit code. */
import path = require('node:path');

import { Command } from 'commander';
import { catalog } from './catalog';
import { exitCodeOf } from './terminal/exit-codes';
import { reportError } from './terminal/report-error';

/** What every file in commands/ exports. */
interface CommandModule {
  register(program: Command): void;
}

/** Runs `ds` with the words behind its name. Sets the exit code; never exits by itself while output may be pending. */
export async function main(args: readonly string[]): Promise<void> {
  // A reader that has seen enough (`ds ... | head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  try {
    await createProgram(args).parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (isEndOfHelp(error)) return;
    reportError(error, wantsJson(args));
    process.exitCode = exitCodeOf(error);
  }
}

/** Makes the program with the one command loaded that `args` name, and the others as lines of help. */
function createProgram(args: readonly string[]): Command {
  const program = new Command('ds')
    .description('DeepSpeed for Node.js: train large transformers with ZeRO, and let them write.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .addHelpText('after', examples);
  const asked = args.filter((arg) => !arg.startsWith('-')).find((arg) => arg !== 'help');
  for (const { name, usage, summary } of catalog) {
    if (name === asked) load(name).register(program);
    else program.command(`${name}`).usage(usage).description(summary);
  }
  for (const command of program.commands) command.exitOverride().configureOutput({ writeErr: () => {} });
  return program;
}

function load(name: string): CommandModule {
  return require(path.join(__dirname, 'commands', name)) as CommandModule;
}

function version(): string {
  return (require('../package.json') as { version: string }).version;
}

/** Commander ends help and version by an error of its own. */
function isEndOfHelp(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return ['commander.helpDisplayed', 'commander.help', 'commander.version'].includes(code);
}

/** Whether errors go to stdout as JSON. Words behind the script of `ds launch` are the script's own. */
function wantsJson(args: readonly string[]): boolean {
  const script = args[0] === 'launch' ? args.findIndex((arg, i) => i > 0 && /\.[cm]?[jt]s$/.test(arg)) : -1;
  return (script === -1 ? args : args.slice(0, script)).includes('--json');
}

const examples = `
Examples:
  $ ds quickstart                                    train a small BLOOM here and now
  $ ds train train.json                              train as a config says
  $ ds plan --model bloom-7b1 --world 8 --stage 3    what it would need
  $ ds generate runs/quickstart/model --prompt "export function"
  $ ds serve runs/quickstart/model --port 8080

Exit codes: 0 done, 1 failed, 2 wrong command line or config, 130 interrupted twice.
Every command takes --json (results as JSON on stdout, errors as {"error":{"code","message","hint"}}) and --quiet.
`;
