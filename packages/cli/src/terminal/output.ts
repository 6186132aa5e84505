/**
 * Where words go: results on stdout, everything else on stderr.
 *
 * With `--json` stdout holds JSON and nothing else; with `--quiet` stderr holds errors and nothing else.
 */
import type { Command } from 'commander';
import { createColors, isColorSupported } from 'picocolors';

export interface OutputOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Colours for what goes to stdout; plain where that is no terminal. */
  readonly colors = createColors(isColorSupported && process.stdout.isTTY === true);
  /** Colours for what goes to stderr. */
  readonly noteColors = createColors(isColorSupported && process.stderr.isTTY === true);

  constructor({ json = false, quiet = false }: OutputOptions = {}) {
    this.json = json;
    this.quiet = quiet;
  }

  /** Gives the command's result: as one line of JSON, or as the text for people. */
  result(value: object, text: () => string): void {
    process.stdout.write(`${this.json ? JSON.stringify(value) : text()}\n`);
  }

  /** Writes a line of JSON; only under `--json`. */
  line(value: object): void {
    if (this.json) process.stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** Writes text for people on stdout; nothing under `--json`. */
  print(text: string): void {
    if (!this.json) process.stdout.write(text);
  }

  /** Tells people something on the way. */
  note(text: string): void {
    if (!this.quiet) process.stderr.write(`${text}\n`);
  }
}

/** Adds the options that every command has. */
export function withOutputOptions(command: Command): Command {
  return command
    .option('--json', 'print JSON on stdout, for programs')
    .option('-q, --quiet', 'say nothing on the way but errors');
}

/** Makes the output that a command's options ask for. */
export function outputOf(options: OutputOptions): Output {
  return new Output(options);
}
