/**
 * The clients that people use, against our server with a scripted model.
 *
 * They run in a process of their own, so that the next generation of them, which needs another Node, runs the same scenarios:
 * node test/clients/next-generation.mjs
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { TestServer } from '../../packages/inference/test-support/http-client';
import { lastUserText } from '../../packages/inference/test-support/scripted-model';

const node = process.env.DS_CLIENTS_NODE ?? process.execPath;
const scenarios = process.env.DS_CLIENTS_SCENARIOS ?? path.join(__dirname, 'scenarios.mjs');
const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';

function answer(prompt: string, seed: number | undefined, index: number): string {
  const said = lastUserText(prompt);
  if (said.includes('<tool_response>')) return 'It is 21 degrees.';
  if (said === 'talk and weather') return `I look.\n${call}`;
  if (said === 'weather') return call;
  if (said === 'emoji') return '🙂 naïve 日本';
  if (said === 'which') return `answer ${index}`;
  if (said === 'seed') return `seed ${seed}`;
  if (said === 'long') return 'and so on '.repeat(2_000);
  return said === 'fail' ? 'not long before' : 'Hello from here.';
}

interface Outcome {
  name: string;
  error: string | null;
}

/** Runs all scenarios, and gives how each of them ended. */
function run(url: string): Promise<Outcome[]> {
  const child = spawn(node, [scenarios, url], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0)
        resolve(
          stdout
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line) as Outcome),
        );
      else reject(new Error(`scenarios ended with ${code}\n${stdout}\n${stderr}`));
    });
  });
}

it('18 chat and 11 responses scenarios, and those beside them, end well', async () => {
  await using server = await TestServer.start(
    {
      answer: (prompt, { options }, index) => answer(prompt, options.seed, index),
      tokenMs: 0,
      failWhen: (prompt, token) => lastUserText(prompt) === 'fail' && token === 5,
    },
    // The deadline of templates is by the clock; a schema of 200 KB on a busy machine takes a while.
    { apiKeys: ['key-of-the-test'], limits: { templateMs: 10_000 } },
  );
  const outcomes = await run(server.server.url);
  expect(outcomes.filter(({ error }) => error !== null)).toEqual([]);
  const kinds = outcomes.map(({ name }) => name.split(':')[0]);
  const count = (kind: string) => kinds.filter((each) => each === kind).length;
  expect([count('chat'), count('responses'), count('extra')]).toEqual([18, 11, 8]);
  expect(server.model.pagesInUse).toBe(0);
}, 120_000);
