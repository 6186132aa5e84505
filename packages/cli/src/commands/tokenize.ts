/** ds tokenize: text to ids and back, as a model folder's tokenizer does it. */
import { DsError } from '@ds/core-native';
import { loadTokenizer, type Tokenizer } from '@ds/io';
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { readAll, readLines } from '../terminal/input';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';

interface TokenizeFlags extends OutputOptions {
  readonly decode?: boolean;
}

const help = `
With --json stdin holds a JSON string a line, stdout an array of ids a line; with --decode the other way round.
Without --json all of stdin is one text, and stdout its ids; with --decode stdin holds ids, and stdout is their text.

Examples:
  $ echo '"The river"' | ds tokenize bloom-560m --json
  $ ds tokenize bloom-560m < book.txt | wc -w
  $ echo 5 6 7 | ds tokenize bloom-560m --decode
`;

export function register(program: Command): void {
  const command = program.command('tokenize').description(summaryOf('tokenize'));
  command
    .argument('<dir>', 'a Hugging Face model folder, or a tokenizer.json')
    .option('--decode', 'turn ids into text');
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((dir: string, flags: TokenizeFlags) => tokenize(dir, flags));
}

async function tokenize(dir: string, flags: TokenizeFlags): Promise<void> {
  const output = outputOf(flags);
  const tokenizer = loadTokenizer(dir);
  if (flags.json) await convertLines(tokenizer, flags.decode ?? false);
  else await convertText(tokenizer, flags.decode ?? false, output);
}

async function convertLines(tokenizer: Tokenizer, decode: boolean): Promise<void> {
  for await (const { text, number } of readLines(process.stdin)) {
    const value = parseLine(text, number);
    const result = decode ? tokenizer.decode(expectIds(value, number)) : tokenizer.encode(expectText(value, number));
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
}

async function convertText(tokenizer: Tokenizer, decode: boolean, output: Output): Promise<void> {
  const text = await readAll(process.stdin);
  if (!decode) {
    output.print(`${tokenizer.encode(text).join(' ')}\n`);
    return;
  }
  const words = text.split(/[\s,]+/).filter((word) => word !== '');
  const wrong = words.find((word) => !/^\d+$/.test(word));
  if (wrong !== undefined) throw wrongInput('stdin', 'ids of tokens between spaces', JSON.stringify(wrong));
  output.print(tokenizer.decode(words.map(Number)));
}

function parseLine(text: string, number: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw wrongInput(`stdin, line ${number}`, 'one JSON value', cause instanceof Error ? cause.message : String(cause));
  }
}

function expectText(value: unknown, number: number): string {
  if (typeof value === 'string') return value;
  throw wrongInput(`stdin, line ${number}`, 'a JSON string', shown(value));
}

function expectIds(value: unknown, number: number): number[] {
  if (Array.isArray(value) && value.every((id) => Number.isSafeInteger(id) && id >= 0)) return value as number[];
  throw wrongInput(`stdin, line ${number}`, 'a JSON array of ids', shown(value));
}

function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function wrongInput(op: string, expected: string, actual: string): DsError {
  return new DsError({ code: 'FORMAT', op, expected, actual, hint: 'See ds tokenize --help.' });
}
