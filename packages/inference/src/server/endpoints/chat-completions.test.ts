/** The chat endpoint, byte for byte where clients depend on it. */
import { chatBody, eventsOf, TestServer } from '../../../test-support/http-client';
import { lastUserText } from '../../../test-support/scripted-model';

const weatherTool = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Now',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
  },
};
const call = (city: string) => `<tool_call>\n{"name": "get_weather", "arguments": {"city": "${city}"}}\n</tool_call>`;

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    answer: (prompt, { options }, i) => {
      const said = lastUserText(prompt);
      if (said.includes('tool_response')) return 'It is warm.';
      if (prompt.includes('<tools>') && said.includes('both')) return `Two:\n${call('Rome')}\n${call('Oslo')}`;
      if (prompt.includes('<tools>') && said.includes('weather')) return call('Rome');
      if (said === 'emoji') return 'a🙂é日';
      if (said === 'numbers') return 'one two STOP three';
      if (said === 'seed') return `drawn with ${options.seed}, answer ${i}`;
      return 'Hi!';
    },
  });
});
afterAll(() => server[Symbol.asyncDispose]());

/** What changes from call to call, named. */
function steady(text: string): string {
  return text
    .replace(/chatcmpl-[0-9a-f]{32}/g, 'ID')
    .replace(/"created":\d{10}/g, '"created":0')
    .replace(/call_[0-9a-f]{24}/g, 'CALL');
}

it('answers with the whole shape', async () => {
  const { status, headers, text } = await server.chat('hello');
  expect(status).toBe(200);
  expect(headers.get('content-type')).toBe('application/json');
  expect(headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/);
  expect(headers.get('x-ds-ignored-fields')).toBeNull();
  expect(steady(text)).toBe(
    '{"id":"ID","object":"chat.completion","created":0,"model":"scripted","choices":[{"index":0,"message":{"role":"assistant",' +
      '"content":"Hi!","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":4,"total_tokens":28}}',
  );
});

it('streams role, texts, finish, and [DONE]; usage only when asked', async () => {
  const plain = await server.chat('hello', { stream: true });
  expect(plain.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  expect(plain.headers.get('cache-control')).toBe('no-cache');
  expect(plain.headers.get('x-accel-buffering')).toBe('no');
  const head = '"id":"ID","object":"chat.completion.chunk","created":0,"model":"scripted"';
  const chunk = (delta: string, finish = 'null', usage = '') =>
    `data: {${head},"choices":[{"index":0,"delta":${delta},"logprobs":null,"finish_reason":${finish}}]${usage}}\n\n`;
  const expected = (usage = '', last = '') =>
    chunk('{"role":"assistant","content":""}', 'null', usage) +
    ['H', 'i', '!'].map((text) => chunk(`{"content":"${text}"}`, 'null', usage)).join('') +
    chunk('{}', '"stop"', usage) +
    last +
    'data: [DONE]\n\n';
  expect(steady(plain.text)).toBe(expected());
  const counted = await server.chat('hello', { stream: true, stream_options: { include_usage: true } });
  const usage = '"usage":{"prompt_tokens":24,"completion_tokens":4,"total_tokens":28}';
  expect(steady(counted.text)).toBe(expected(',"usage":null', `data: {${head},"choices":[],${usage}}\n\n`));
});

it('never splits a character', async () => {
  const { text } = await server.chat('emoji', { stream: true });
  const pieces = eventsOf(text).flatMap((event) => event.choices?.[0].delta.content || []);
  expect(pieces).toEqual(['a', '🙂', 'é', '日']);
});

it('ends before a stop text that comes in pieces, and holds it back', async () => {
  const whole = await server.chat('numbers', { stop: 'STOP' });
  expect(whole.json.choices[0]).toMatchObject({ message: { content: 'one two ' }, finish_reason: 'stop' });
  const { text } = await server.chat('numbers', { stream: true, stop: ['never', 'STOP'] });
  expect(
    eventsOf(text)
      .map((event) => event.choices?.[0].delta.content ?? '')
      .join(''),
  ).toBe('one two ');
  expect(text).not.toContain('"S"');
});

it('ends with length', async () => {
  for (const field of ['max_tokens', 'max_completion_tokens']) {
    const { json } = await server.chat('numbers', { [field]: 3 });
    expect(json.choices[0]).toMatchObject({ message: { content: 'one' }, finish_reason: 'length' });
    expect(json.usage.completion_tokens).toBe(3);
  }
});

it('gives n answers, whole and interleaved', async () => {
  const { json } = await server.chat('seed', { n: 3, seed: 7 });
  expect(
    json.choices.map((c: { index: number; message: { content: string } }) => [c.index, c.message.content]),
  ).toEqual([0, 1, 2].map((i) => [i, `drawn with 7, answer ${i}`]));
  const events = eventsOf((await server.chat('seed', { n: 3, seed: 7, stream: true })).text).slice(0, -1);
  for (const index of [0, 1, 2]) {
    const own = events.filter((event) => event.choices[0].index === index).map((event) => event.choices[0]);
    expect(own[0].delta).toEqual({ role: 'assistant', content: '' });
    expect(own.map((choice) => choice.delta.content ?? '').join('')).toBe(`drawn with 7, answer ${index}`);
    expect(own.at(-1)).toMatchObject({ delta: {}, finish_reason: 'stop' });
  }
});

it('passes sampling on under the engine’s names, and leaves out what changes nothing', async () => {
  const sampling = {
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.1,
    seed: 3,
    presence_penalty: 0.5,
    frequency_penalty: -0.5,
    repetition_penalty: 1.2,
    logit_bias: { '65': -100, '66': 5 },
    stop: ['x'],
    ignore_eos: true,
    max_tokens: 9,
    n: 2,
  };
  await server.chat('hello', sampling);
  expect(server.model.requests.at(-1)!.options).toEqual({
    temperature: 0.5,
    topP: 0.9,
    topK: 40,
    minP: 0.1,
    seed: 3,
    presencePenalty: 0.5,
    frequencyPenalty: -0.5,
    repetitionPenalty: 1.2,
    logitBias: { '65': -100, '66': 5 },
    stop: ['x'],
    ignoreEos: true,
    maxNewTokens: 9,
    n: 2,
  });
  await server.chat('hello', { temperature: 0, seed: 3, max_tokens: 9 });
  expect(server.model.requests.at(-1)!.options).toEqual({ greedy: true, maxNewTokens: 9, n: 1 });
  const nothing = Object.fromEntries(Object.keys(sampling).map((name) => [name, null]));
  await server.chat('hello', {
    ...nothing,
    tools: null,
    tool_choice: null,
    response_format: null,
    stream: null,
    max_tokens: 9,
  });
  expect(server.model.requests.at(-1)!.options).toEqual({ temperature: 1, maxNewTokens: 9, n: 1 });
});

it('gives logprobs of every token', async () => {
  const { json } = await server.chat('hello', { logprobs: true, top_logprobs: 2 });
  expect(json.choices[0].logprobs).toEqual({
    content: ['H', 'i', '!', '<|im_end|>'].map((token) => ({
      token,
      logprob: -0.5,
      bytes: [...Buffer.from(token)],
      top_logprobs: [
        { token: 'A', logprob: -0.5, bytes: [65] },
        { token: 'B', logprob: -1.5, bytes: [66] },
      ],
    })),
    refusal: null,
  });
  const events = eventsOf((await server.chat('hello', { logprobs: true, stream: true })).text);
  const tokens = events.flatMap((event) => event.choices?.[0].logprobs?.content ?? []);
  expect(tokens.map(({ token, top_logprobs }) => [token, top_logprobs])).toEqual(
    ['H', 'i', '!', '<|im_end|>'].map((t) => [t, []]),
  );
  expect((await server.chat('hello', { top_logprobs: 2 })).json.error.param).toBe('top_logprobs');
});

describe('tools', () => {
  it('are called, with arguments as a JSON text', async () => {
    const { text } = await server.chat('weather?', { tools: [weatherTool] });
    expect(JSON.parse(steady(text)).choices[0]).toEqual({
      index: 0,
      message: {
        role: 'assistant',
        content: null,
        refusal: null,
        tool_calls: [{ id: 'CALL', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Rome"}' } }],
      },
      logprobs: null,
      finish_reason: 'tool_calls',
    });
  });

  it('are called in a stream, name first', async () => {
    const { text } = await server.chat('both', { tools: [weatherTool], stream: true });
    const deltas = eventsOf(steady(text))
      .slice(0, -1)
      .map((event) => event.choices[0].delta);
    expect(deltas.map((delta) => delta.content ?? '').join('')).toBe('Two:');
    expect(deltas.flatMap((delta) => delta.tool_calls ?? [])).toEqual([
      { index: 0, id: 'CALL', type: 'function', function: { name: 'get_weather', arguments: '' } },
      { index: 0, function: { arguments: '{"city":"Rome"}' } },
      { index: 1, id: 'CALL', type: 'function', function: { name: 'get_weather', arguments: '' } },
      { index: 1, function: { arguments: '{"city":"Oslo"}' } },
    ]);
    expect(eventsOf(text).at(-2).choices[0].finish_reason).toBe('tool_calls');
  });

  it('are called once where the request wants no more', async () => {
    const { json } = await server.chat('both', { tools: [weatherTool], parallel_tool_calls: false });
    expect(json.choices[0].message.tool_calls).toHaveLength(1);
  });

  it('get their results back into the prompt', async () => {
    const messages = [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: [{ type: 'text', text: 'weather?' }] },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c1', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Rome"}' } }],
      },
      { role: 'tool', tool_call_id: 'c1', content: '21 degrees' },
    ];
    const { json } = await server.post('/v1/chat/completions', { model: 'scripted', messages, tools: [weatherTool] });
    expect(json.choices[0].message.content).toBe('It is warm.');
    const prompt = server.model.decode(server.model.requests.at(-1)!.promptIds);
    expect(prompt).toContain('Be brief.');
    expect(prompt).toContain('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>');
    expect(prompt).toContain('<tool_response>\n21 degrees\n</tool_response>');
  });

  it('stay out with tool_choice none, and are refused where they can’t be promised', async () => {
    const none = await server.chat('weather?', { tools: [weatherTool], tool_choice: 'none' });
    expect(none.json.choices[0].message.content).toBe('Hi!');
    for (const tool_choice of ['required', { type: 'function', function: { name: 'get_weather' } }]) {
      const { status, json } = await server.chat('weather?', { tools: [weatherTool], tool_choice });
      expect([status, json.error.param, json.error.code]).toEqual([400, 'tool_choice', 'unsupported_value']);
    }
    expect((await server.chat('x', { tool_choice: 'required' })).json.error.message).toBe('tool_choice needs tools');
  });
});

it.each([
  { type: 'json_object' },
  { type: 'json_schema', json_schema: { name: 'a', strict: true, schema: { $schema: 'x', type: 'object' } } },
])('refuses %j by name: no form is promised that is not kept', async (response_format) => {
  const { status, json } = await server.chat('x', { response_format });
  expect(status).toBe(400);
  expect(json.error).toEqual({
    message: `response_format of type "${response_format.type}": not built yet`,
    type: 'invalid_request_error',
    param: 'response_format',
    code: 'unsupported_value',
  });
});

it('takes format text, and messages of every role', async () => {
  const { status, json } = await server.post('/chat/completions', {
    ...chatBody('x', { response_format: { type: 'text' } }),
    messages: [
      { role: 'developer', content: 'Be kind.' },
      { role: 'user', content: 'x', name: 'Ann' },
      { role: 'assistant', content: 'y' },
      { role: 'user', content: 'hello' },
    ],
  });
  expect([status, json.choices[0].message.content]).toEqual([200, 'Hi!']);
  expect(server.model.decode(server.model.requests.at(-1)!.promptIds)).toContain('<|im_start|>system\nBe kind.');
});

it('refuses a conversation with a model that has no template for it, and tools where it has no place for them', async () => {
  await using without = await TestServer.start({ template: '' });
  expect((await without.chat('x')).json.error.code).toBe('no_chat_template');
  await using plain = await TestServer.start({ template: '{% for m in messages %}{{ m.content }}{% endfor %}' });
  expect((await plain.chat('x')).status).toBe(200);
  expect((await plain.chat('x', { tools: [weatherTool] })).json.error.code).toBe('tools_not_supported');
});
