/** A real model behind the server: answers are those of the engine, and what clients leave is freed. */

import { readGolden } from '../../../../test/support/golden';
import { type Answer, eventsOf, until } from '../../test-support/http-client';
import { ModelFolderCopy } from '../../test-support/model-folders';
import { InferenceEngine } from '../inference-engine';
import { type RunningServer, serveEngine } from '../serve-engine';

const [golden] = readGolden('bloom-tiny').prompts;
const template = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ eos_token }}assistant:';

let copy: ModelFolderCopy;
let engine: InferenceEngine;
let server: RunningServer;
beforeAll(async () => {
  copy = new ModelFolderCopy('bloom-tiny').json('tokenizer_config.json', { chat_template: template });
  engine = await InferenceEngine.load(copy.folder);
  server = await serveEngine(engine, { port: 0, modelId: 'tiny', cacheTokens: 2048 });
});
afterAll(async () => {
  await server.close();
  await engine[Symbol.asyncDispose]();
  copy[Symbol.dispose]();
});

async function post(path: string, body: object, signal?: AbortSignal): Promise<Answer> {
  const response = await fetch(server.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', ...body }),
    ...(signal ? { signal } : {}),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: text.startsWith('{') ? JSON.parse(text) : undefined,
  };
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return Number(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, 'm').exec(text)![1]);
}

const greedy = { temperature: 0, ignore_eos: true, max_tokens: 32 };

it('continues as the golden text does, whole and in a stream', async () => {
  const whole = await post('/v1/completions', { prompt: golden!.text, ...greedy });
  expect(whole.json.choices[0].text).toBe(golden!.greedy_text);
  expect(whole.json.usage).toEqual({
    prompt_tokens: golden!.input_ids.length,
    completion_tokens: 32,
    total_tokens: golden!.input_ids.length + 32,
  });
  const ids = await post('/v1/completions', { prompt: golden!.input_ids, ...greedy, stream: true });
  expect(
    eventsOf(ids.text)
      .map((event) => event.choices?.[0].text ?? '')
      .join(''),
  ).toBe(golden!.greedy_text);
});

it('gives a draw again for the same seed, n of them, with logprobs', async () => {
  const body = { prompt: golden!.text, temperature: 1, seed: 5, n: 2, max_tokens: 8, ignore_eos: true, logprobs: 3 };
  const [first, second] = [await post('/v1/completions', body), await post('/v1/completions', body)];
  expect(first.json.choices).toEqual(second.json.choices);
  expect(first.json.choices[0].text).not.toBe(first.json.choices[1].text);
  const { tokens, token_logprobs, top_logprobs } = first.json.choices[0].logprobs;
  expect(tokens).toHaveLength(8);
  for (const [i, logprob] of token_logprobs.entries()) {
    expect(logprob).toBeLessThan(0);
    const likely = Object.values(top_logprobs[i]) as number[];
    expect(likely.length).toBeGreaterThan(0);
    expect(Math.max(...likely)).toBeGreaterThanOrEqual(logprob);
  }
});

it('echoes a prompt with its logprobs', async () => {
  const { json } = await post('/v1/completions', {
    prompt: golden!.text,
    ...greedy,
    max_tokens: 1,
    echo: true,
    logprobs: 0,
  });
  const { token_logprobs } = json.choices[0].logprobs;
  expect(token_logprobs).toHaveLength(golden!.input_ids.length + 1);
  const known: number[] = token_logprobs.slice(1, -1);
  // The golden loss is the mean over the prompt's tokens but the first.
  expect(-known.reduce((sum, logprob) => sum + logprob, 0) / known.length).toBeCloseTo(golden!.loss, 4);
});

it('chats by the template of the folder', async () => {
  const { json } = await post('/v1/chat/completions', {
    messages: [{ role: 'user', content: 'hi' }],
    ...greedy,
    max_tokens: 5,
  });
  expect(json.choices[0].finish_reason).toBe('length');
  const prompt = `user: hi\n${engine.tokenizer!.idToToken(engine.tokenizer!.eosTokenId!)}assistant:`;
  const same = await post('/v1/completions', { prompt, ...greedy, max_tokens: 5 });
  expect(json.choices[0].message.content).toBe(same.json.choices[0].text);
  expect(json.usage).toEqual(same.json.usage);
});

it('many at once get what they would get alone', async () => {
  const prompts = readGolden('bloom-tiny').prompts;
  const answers = await Promise.all(prompts.map(({ text }) => post('/v1/completions', { prompt: text, ...greedy })));
  expect(answers.map(({ json }) => json.choices[0].text)).toEqual(prompts.map(({ greedy_text }) => greedy_text));
});

it('frees the pages of clients that go', async () => {
  await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const body = { prompt: golden!.text, ignore_eos: true, max_tokens: 200, stream: i % 2 === 0 };
      await post('/v1/completions', body, AbortSignal.timeout(10 + 13 * i)).catch(() => {});
    }),
  );
  let pages = 1;
  void (async () => {
    for (; pages > 0; await new Promise((resolve) => setTimeout(resolve, 5)))
      pages = await metric('ds_kv_cache_pages_in_use');
  })();
  await until(() => pages === 0, 20_000);
  expect(await metric('ds_num_requests_running')).toBe(0);
});

it('refuses what there is no room for, and a model without a tokenizer', async () => {
  const { json } = await post('/v1/completions', { prompt: golden!.text, max_tokens: 100_000 });
  expect(json.error.code).toBe('context_length_exceeded');
  using bare = new ModelFolderCopy('bloom-tiny').remove('tokenizer.json');
  await using mute = await InferenceEngine.load(bare.folder);
  await expect(serveEngine(mute, { port: 0 })).rejects.toMatchObject({
    code: 'CONFIG',
    message: expect.stringContaining('tokenizer.json'),
  });
});
