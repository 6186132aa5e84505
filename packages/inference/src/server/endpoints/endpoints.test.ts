/** Completions, responses, models, tokens, metrics: the shapes that clients depend on. */
import { eventsOf, TestServer } from '../../../test-support/http-client';

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    answer: (prompt, _, i) =>
      prompt.includes('<tools>') ? 'See: <tool_call>{"name":"f","arguments":{}}</tool_call>' : `ab${i}`,
  });
});
afterAll(() => server[Symbol.asyncDispose]());

const complete = (more: object) => server.post('/v1/completions', { model: 'scripted', ...more });
const respond = (more: object) => server.post('/v1/responses', { model: 'scripted', input: 'hello', ...more });

describe('completions', () => {
  it('have the whole shape', async () => {
    const { json } = await complete({ prompt: 'xyz', max_tokens: 50 });
    expect(json).toEqual({
      id: expect.stringMatching(/^cmpl-/),
      object: 'text_completion',
      created: expect.any(Number),
      model: 'scripted',
      choices: [{ index: 0, text: 'ab0', logprobs: null, finish_reason: 'stop' }],
      usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 },
    });
  });

  it('take a text, ids, and lists of both; answer j of prompt i is choice i n + j', async () => {
    for (const [prompt, prompts] of [
      ['x', 1],
      [[1, 2], 1],
      [['x', 'yy'], 2],
      [[[1], [2, 3]], 2],
    ] as const) {
      const { json } = await complete({ prompt, n: 2 });
      expect(json.choices.map((choice: { text: string; index: number }) => [choice.index, choice.text])).toEqual(
        Array.from({ length: 2 * prompts }, (_, i) => [i, `ab${i % 2}`]),
      );
    }
    expect((await complete({ prompt: [[1], [258]] })).json.error).toMatchObject({
      param: 'prompt',
      message: 'expected ids below 258, got 258',
    });
    for (const prompt of ['', [], [[]], [1.5], [-1], ['x', 1], null, 7])
      expect((await complete({ prompt })).status).toBe(400);
  });

  it('write 16 tokens where nobody says how many', async () => {
    expect((await complete({ prompt: 'x', ignore_eos: true })).json.usage.completion_tokens).toBe(16);
  });

  it('give logprobs, of the prompt too where it is echoed', async () => {
    const { json } = await complete({ prompt: 'xy', logprobs: 2, echo: true });
    expect(json.choices[0]).toEqual({
      index: 0,
      text: 'xyab0',
      finish_reason: 'stop',
      logprobs: {
        tokens: ['x', 'y', 'a', 'b', '0', '<|im_end|>'],
        token_logprobs: [null, -0.5, -0.5, -0.5, -0.5, -0.5],
        top_logprobs: [null, ...Array.from({ length: 5 }, () => ({ A: -0.5, B: -1.5 }))],
        text_offset: [0, 1, 2, 3, 4, 5],
      },
    });
    expect(json.usage).toEqual({ prompt_tokens: 2, completion_tokens: 4, total_tokens: 6 });
    expect(server.model.requests.at(-1)!.options).toMatchObject({ logprobs: 2, promptLogprobs: 2, echo: true });
  });

  it('stream', async () => {
    const { text } = await complete({
      prompt: ['x', 'y'],
      stream: true,
      stream_options: { include_usage: true },
      logprobs: 0,
    });
    const events = eventsOf(text);
    expect(events.at(-1)).toBe('[DONE]');
    expect(events.at(-2)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 2, completion_tokens: 8, total_tokens: 10 },
    });
    for (const index of [0, 1]) {
      const own = events
        .slice(0, -2)
        .flatMap((event) => event.choices)
        .filter((choice) => choice.index === index);
      expect(own.map((choice) => choice.text).join('')).toBe('ab0');
      expect(own.at(-1).finish_reason).toBe('stop');
      expect(own.flatMap((choice) => choice.logprobs.text_offset)).toEqual([0, 1, 2, 3]);
    }
  });

  it.each([{ suffix: 'x' }, { best_of: 2 }])('refuse %j by name', async (more) => {
    expect((await complete({ prompt: 'x', ...more })).json.error).toMatchObject({
      param: Object.keys(more)[0],
      code: 'unsupported_value',
    });
    expect((await complete({ prompt: 'x', suffix: '', best_of: 2, n: 2 })).status).toBe(200);
  });
});

describe('responses', () => {
  const tools = [{ type: 'function', name: 'f', parameters: null, strict: null }];

  it('have the whole shape', async () => {
    const { json } = await respond({ instructions: 'Be brief.', metadata: { a: 'b' } });
    expect(json).toMatchObject({
      id: expect.stringMatching(/^resp_/),
      object: 'response',
      created_at: expect.any(Number),
      status: 'completed',
      error: null,
      incomplete_details: null,
      model: 'scripted',
      previous_response_id: null,
      tool_choice: 'auto',
      tools: [],
      output: [
        {
          id: expect.stringMatching(/^msg_/),
          type: 'message',
          role: 'assistant',
          status: 'completed',
          content: [{ type: 'output_text', text: 'ab0', annotations: [], logprobs: [] }],
        },
      ],
      usage: {
        output_tokens: 4,
        input_tokens_details: { cached_tokens: 0 },
        output_tokens_details: { reasoning_tokens: 0 },
      },
    });
    expect(json.usage.total_tokens).toBe(json.usage.input_tokens + 4);
    expect(server.model.decode(server.model.requests.at(-1)!.promptIds)).toContain(
      '<|im_start|>system\nBe brief.<|im_end|>',
    );
  });

  it('tell of text and calls in order, numbered, each event named twice', async () => {
    const { text } = await respond({ tools, stream: true });
    const events = eventsOf(text);
    expect(events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1])).toEqual(
      [
        'response.created',
        'response.in_progress',
        'response.output_item.added',
        'response.content_part.added',
        'response.output_text.delta',
        'response.output_text.done',
        'response.content_part.done',
        'response.output_item.done',
        'response.output_item.added',
        'response.function_call_arguments.delta',
        'response.function_call_arguments.done',
        'response.output_item.done',
        'response.completed',
      ].filter((type, i, all) => type !== all[i - 1]),
    );
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, i) => i));
    expect(
      text
        .split('\n\n')
        .filter(Boolean)
        .map((block) => /^event: (.*)\ndata: \{"type":"(.*?)"/.exec(block)!.slice(1)),
    ).toEqual(events.map(({ type }) => [type, type]));
    expect(
      events.at(-1).response.output.map(({ type, status }: { type: string; status: string }) => [type, status]),
    ).toEqual([
      ['message', 'completed'],
      ['function_call', 'completed'],
    ]);
    expect(events.filter(({ type }) => type.endsWith('item.added')).map((event) => event.output_index)).toEqual([0, 1]);
  });

  it('say when there were too few tokens', async () => {
    const { json } = await respond({ max_output_tokens: 2 });
    expect(json).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
      output: [{ status: 'incomplete' }],
    });
    expect(eventsOf((await respond({ max_output_tokens: 2, stream: true })).text).at(-1).type).toBe(
      'response.incomplete',
    );
  });

  it('take items back, as they are and by reference', async () => {
    const first = (await respond({ tools })).json;
    const output = {
      type: 'function_call_output',
      call_id: first.output[1].call_id,
      output: [{ type: 'input_text', text: '42' }],
    };
    const said = { role: 'user', content: [{ type: 'input_text', text: 'f?' }] };
    for (const items of [
      first.output,
      first.output.map(({ id }: { id: string }) => ({ type: 'item_reference', id })),
    ]) {
      expect((await respond({ input: [said, ...items, output], tools })).status).toBe(200);
      const prompt = server.model.decode(server.model.requests.at(-1)!.promptIds);
      expect(prompt).toContain(
        '<|im_start|>assistant\nSee:\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_end|>',
      );
      expect(prompt).toContain('<tool_response>\n42\n</tool_response>');
    }
    const unstored = (await respond({ store: false })).json;
    expect(
      (await respond({ input: [{ type: 'item_reference', id: unstored.output[0].id }] })).json.error,
    ).toMatchObject({ param: 'input[0].id', code: 'item_not_found' });
  });

  it.each([
    { previous_response_id: 'resp_1' },
    { conversation: 'c' },
    { background: true },
    { truncation: 'auto' },
    { top_logprobs: 1 },
    { include: ['message.output_text.logprobs'] },
    { text: { format: { type: 'json_object' } } },
    { text: { format: { type: 'json_schema', name: 'a', schema: {} } } },
    { tools: [{ type: 'web_search' }] },
    { input: [] },
    { input: 7 },
    { tool_choice: 'required' },
  ])('refuse %j by name', async (more) => {
    const { status, json } = await respond(more);
    expect([status, String(json.error.param).split(/[.[]/)[0]]).toEqual([400, Object.keys(more)[0]]);
  });
});

it('models are listed and shown', async () => {
  const card = {
    id: 'scripted',
    object: 'model',
    created: expect.any(Number),
    owned_by: 'local',
    max_model_len: 1 << 22,
  };
  for (const path of ['/v1/models', '/models', '/v1/models/'])
    expect((await server.get(path)).json).toEqual({ object: 'list', data: [card] });
  for (const path of ['/v1/models/scripted', '/models/scripted']) expect((await server.get(path)).json).toEqual(card);
  for (const path of ['/v1/models/other', '/v1/models/scripted/x'])
    expect((await server.get(path)).json.error).toMatchObject({ code: 'model_not_found', param: 'model' });
});

it('tokens go and come back', async () => {
  expect((await server.post('/v1/tokenize', { prompt: 'hé' })).json).toEqual({
    count: 3,
    max_model_len: 1 << 22,
    tokens: [104, 195, 169],
  });
  expect((await server.post('/detokenize', { model: 'scripted', tokens: [104, 195, 169] })).json).toEqual({
    prompt: 'hé',
  });
  expect((await server.post('/v1/detokenize', { tokens: [258] })).json.error.param).toBe('tokens');
  expect((await server.post('/v1/tokenize', { model: 'x', prompt: 'y' })).status).toBe(404);
});

it('embeddings are refused by name', async () => {
  const { status, json } = await server.post('/v1/embeddings', {
    model: 'scripted',
    input: ['x'],
    encoding_format: 'base64',
  });
  expect([status, json.error.code]).toEqual([400, 'embeddings_not_supported']);
});

it('paths that are not there, and methods', async () => {
  expect((await server.get('/')).json.error).toEqual({
    message: 'There is no such path.',
    type: 'invalid_request_error',
    param: null,
    code: 'not_found',
  });
  const wrong = await server.get('/v1/chat/completions');
  expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
  const head = await fetch(`${server.server.url}/health`, { method: 'HEAD' });
  expect([head.status, await head.text()]).toEqual([200, '']);
});

it('metrics count', async () => {
  await using fresh = await TestServer.start();
  await fresh.chat('x', { n: 2 });
  await fresh.chat('x', { max_tokens: 2 });
  await fresh.get('/nothing');
  const { text, headers } = await fresh.get('/metrics');
  expect(headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  for (const line of [
    'ds_num_requests_running{model_name="scripted"} 0',
    'ds_request_success_total{model_name="scripted",finished_reason="end"} 2',
    'ds_request_success_total{model_name="scripted",finished_reason="length"} 1',
    'ds_generation_tokens_total{model_name="scripted"} 16',
    'ds_prompt_tokens_total{model_name="scripted"} 40',
    'ds_http_requests_total{path="/v1/chat/completions",status="200"} 2',
    'ds_http_requests_total{path="",status="404"} 1',
    'ds_time_to_first_token_seconds_count{model_name="scripted"} 2',
    'ds_e2e_request_latency_seconds_bucket{model_name="scripted",le="+Inf"} 2',
  ])
    expect(text.split('\n')).toContain(line);
  for (const line of text.trimEnd().split('\n'))
    expect(line).toMatch(/^# (HELP|TYPE) ds_\w+ .+$|^ds_\w+(\{[^}]*\})? [\d.e+-]+$/);
});
