/** Says what went wrong: to programs as JSON on stdout, to people in red with the way out. */
import { createColors, isColorSupported } from 'picocolors';
import { isDsError, isUsageError } from './exit-codes';

export interface ErrorReport {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** Puts any error into the three fields that scripts read. */
export function describeError(error: unknown): ErrorReport {
  if (isDsError(error)) {
    const { code, op, expected, actual, hint } = error;
    return { code, message: `${op}: expected ${expected}, got ${actual}`, hint: hint.trim() };
  }
  if (isUsageError(error)) {
    const message = error.message.replace(/^error: /, '').trim();
    const [first = '', ...rest] = message.split('\n');
    return { code: 'USAGE', message: first, hint: [...rest, 'See ds --help.'].join(' ').trim() };
  }
  if (!(error instanceof Error)) return { code: 'INTERNAL', message: String(error), hint: reportHint };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  // Errors of the file system have a code and a message that says it all.
  if (code && /^E[A-Z]+$/.test(code)) return { code: 'IO', message: error.message, hint: ioHints[code] ?? '' };
  return { code: 'INTERNAL', message: error.message, hint: reportHint };
}

const reportHint =
  'This is a fault of ours: please report it with the output of `ds doctor`. DS_DEBUG=1 shows where it was.';

const ioHints: Readonly<Record<string, string>> = {
  ENOENT: 'Check the path; it is taken from the working directory.',
  EACCES: 'Check the permissions.',
  ENOSPC: 'The disk is full: free some space and run it again.',
};

/** Writes the report of an error. */
export function reportError(error: unknown, json: boolean): void {
  const report = describeError(error);
  if (json) process.stdout.write(`${JSON.stringify({ error: report })}\n`);
  else {
    const { red, bold, yellow } = createColors(isColorSupported && process.stderr.isTTY === true);
    const hint = report.hint === '' ? '' : `${yellow(indent(report.hint))}\n`;
    process.stderr.write(`${red(`${bold(report.code)} ${report.message}`)}\n${hint}`);
  }
  if (process.env.DS_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
}
