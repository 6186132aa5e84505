/** ds serve: a model folder behind OpenAI's HTTP API, until Ctrl-C or SIGTERM. */
import { readFileSync } from 'node:fs';
import type { Served, ServeEngineOptions, ServerLimits } from '@ds/inference';
import { checkServerAddress, serveEngine } from '@ds/inference';
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { type EngineFlags, loadEngine, withEngineOptions } from '../generate/load-engine';
import { parseCount } from '../terminal/arguments';
import { Interrupt } from '../terminal/interrupt';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';

interface ServeFlags extends EngineFlags, OutputOptions {
  readonly host?: string;
  readonly port?: number;
  readonly modelId?: string;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  readonly allowedHost?: readonly string[];
  readonly insecure?: boolean;
  readonly strict?: boolean;
  readonly cacheTokens?: number;
  readonly maxQueue?: number;
  readonly maxConnections?: number;
  readonly maxBodyBytes?: number;
  readonly requestTimeout?: number;
  readonly drainTimeout?: number;
}

const help = `
DIR is a Hugging Face folder: config.json, model.safetensors (or shards), tokenizer.json; for conversations a chat template.
Keys come from --api-key-file, one a line, from the variable DS_API_KEY, or from --api-key, which other users of this machine
can see. Without keys the server listens on this machine alone.
Ctrl-C or SIGTERM lets running requests finish; a second one ends them.

Examples:
  $ ds serve bloom-560m
  $ curl http://127.0.0.1:8080/v1/completions -H 'content-type: application/json' \\
      -d '{"model": "bloom-560m", "prompt": "The river", "stream": true}'
  $ ds serve qwen --host 0.0.0.0 --api-key-file keys.txt --weights q8 --json
`;

export function register(program: Command): void {
  const command = program.command('serve').description(summaryOf('serve'));
  withEngineOptions(command.argument('<dir>', 'a Hugging Face model folder'))
    .option('--host <address>', 'address to listen on (default: 127.0.0.1, this machine alone)')
    .option('--port <n>', 'port; 0: any that is free (default: 8080)', parseCount)
    .option('--model-id <name>', "by which requests name the model (default: the folder's name)")
    .option('--api-key <key...>', 'keys that let requests in')
    .option('--api-key-file <file>', 'keys that let requests in, one a line')
    .option('--allowed-host <name...>', 'names besides localhost by which the server may be asked for')
    .option('--insecure', 'allow an address that other machines can reach without keys')
    .option('--strict', 'answer unknown fields of a request with 400 instead of naming them in a header')
    .option(
      '--cache-tokens <n>',
      'tokens whose keys and values are held, all texts together (default: 8 contexts, 32768 at most)',
      parseCount,
    )
    .option('--max-queue <n>', 'requests that may wait; more get 429 (default: 512)', parseCount)
    .option('--max-connections <n>', 'connections at once (default: 2048)', parseCount)
    .option('--max-body-bytes <n>', 'bytes of a request (default: 4194304)', parseCount)
    .option('--request-timeout <seconds>', 'time for a request (default: 300)', parseCount)
    .option('--drain-timeout <seconds>', 'time for running requests after SIGTERM (default: 30)', parseCount);
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((dir: string, flags: ServeFlags) => serve(dir, flags));
}

async function serve(dir: string, flags: ServeFlags): Promise<void> {
  const output = outputOf(flags);
  const options = optionsOf(flags, output);
  // A port that is taken is better known before a large model is loaded.
  await checkServerAddress(options);
  const asked = new AbortController();
  using interrupt = new Interrupt(() => asked.abort());
  await using engine = await loadEngine(dir, flags, output, asked.signal);
  await using server = await serveEngine(engine, options);
  const { url, modelId, contextTokens, chats } = server;
  output.result(
    { url, model: modelId, context_tokens: contextTokens, chat: chats, pid: process.pid },
    () =>
      `${modelId} at ${url}/v1, context ${contextTokens} tokens, ${chats ? 'chats' : 'continues texts (no chat template)'}`,
  );
  if (!asked.signal.aborted) await new Promise((resolve) => asked.signal.addEventListener('abort', resolve));
  output.note('finishing what runs');
  const impatient = () => void server.close(0);
  interrupt.signal.addEventListener('abort', impatient);
  await server.close();
}

function optionsOf(flags: ServeFlags, output: Output): ServeEngineOptions {
  const { host, port, modelId, allowedHost, insecure, strict, cacheTokens } = flags;
  const given = { host, port, modelId, allowedHosts: allowedHost, insecure, strict, cacheTokens };
  return {
    ...defined(given),
    apiKeys: keysOf(flags),
    limits: limitsOf(flags),
    onServed: (served) => logFault(served, output),
  };
}

function limitsOf(flags: ServeFlags): Partial<ServerLimits> {
  const { maxQueue, maxConnections, maxBodyBytes, requestTimeout, drainTimeout } = flags;
  return defined({
    queue: maxQueue,
    connections: maxConnections,
    bodyBytes: maxBodyBytes,
    requestMs: requestTimeout === undefined ? undefined : 1000 * requestTimeout,
    drainMs: drainTimeout === undefined ? undefined : 1000 * drainTimeout,
  });
}

function keysOf({ apiKey = [], apiKeyFile }: ServeFlags): readonly string[] {
  const fromFile = apiKeyFile === undefined ? [] : readFileSync(apiKeyFile, 'utf8').split('\n');
  const fromEnvironment = process.env.DS_API_KEY ? [process.env.DS_API_KEY] : [];
  return [...apiKey, ...fromEnvironment, ...fromFile].map((key) => key.trim()).filter((key) => key !== '');
}

/** Requests are not logged; what went wrong inside is, without their texts. */
function logFault({ requestId, path, fault }: Served, output: Output): void {
  if (fault === undefined) return;
  output.note(`${requestId} ${path}: ${fault instanceof Error ? fault.message : String(fault)}`);
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}
