/**
 * What people do with the clients they know, against a server whose model is scripted (clients.test.ts): node scenarios.mjs URL
 *
 * Prints a line of JSON for each scenario: {name, error: null | text}. Runs with whatever generation of the clients lies beside it.
 */
import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { HumanMessage, SystemMessage, ToolMessage } from '@langchain/core/messages';
import { tool as langchainTool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';

const baseURL = `${process.argv[2]}/v1`;
const apiKey = 'key-of-the-test';
const model = 'scripted';
const openai = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const compatible = createOpenAICompatible({ name: 'ds', baseURL, apiKey, includeUsage: true })(model);
const chatSdk = createOpenAI({ baseURL, apiKey }).chat(model);
const responsesSdk = createOpenAI({ baseURL, apiKey }).responses(model);
const langchain = (more = {}) => new ChatOpenAI({ model, apiKey, configuration: { baseURL }, maxRetries: 0, ...more });
const langchainResponses = (more = {}) => langchain({ useResponsesApi: true, ...more });

const user = (content) => [{ role: 'user', content }];
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const weather = { type: 'function', function: { name: 'get_weather', description: 'Weather now', parameters } };
const sdkWeather = tool({
  description: 'Weather now',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `21 degrees in ${city}`,
});
const langchainWeather = langchainTool(({ city }) => `21 degrees in ${city}`, {
  name: 'get_weather',
  description: 'Weather now',
  schema: z.object({ city: z.string() }),
});

async function all(stream) {
  const values = [];
  for await (const value of stream) values.push(value);
  return values;
}

async function rejected(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('was expected to fail');
}

/** Waits until the server has nothing in the making. */
async function idle() {
  for (let i = 0; i < 200; i++) {
    const response = await fetch(`${process.argv[2]}/metrics`, { headers: { authorization: `Bearer ${apiKey}` } });
    const text = await response.text();
    if (/num_requests_running\{[^}]*\} 0\n/.test(text) && /kv_cache_pages_in_use\{[^}]*\} 0\n/.test(text)) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('the server still works on something');
}

const chat = {
  async 'openai: create'() {
    const { data, response } = await openai.chat.completions.create({ model, messages: user('hello') }).withResponse();
    assert.equal(data.choices[0].message.content, 'Hello from here.');
    assert.equal(data.choices[0].finish_reason, 'stop');
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.match(data._request_id ?? response.headers.get('x-request-id'), /^req_/);
  },
  async 'openai: create with stream'() {
    const stream = await openai.chat.completions.create({
      model,
      messages: user('hello'),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await all(stream);
    assert.equal(chunks.map((c) => c.choices[0]?.delta.content ?? '').join(''), 'Hello from here.');
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  },
  async 'openai: stream helper'() {
    const runner = openai.chat.completions.stream({ model, messages: user('hello'), logprobs: true });
    const { choices } = await runner.finalChatCompletion();
    assert.equal(choices[0].message.content, 'Hello from here.');
    assert.ok(choices[0].logprobs.content.length > 3);
  },
  async 'openai: stream helper with tools'() {
    const runner = openai.chat.completions.stream({ model, messages: user('weather'), tools: [weather] });
    const { choices } = await runner.finalChatCompletion();
    assert.deepEqual(JSON.parse(choices[0].message.tool_calls[0].function.arguments), { city: 'Paris' });
  },
  async 'openai: runTools'() {
    const runner = openai.chat.completions.runTools({
      model,
      messages: user('weather'),
      tools: [
        {
          type: 'function',
          function: { ...weather.function, parse: JSON.parse, function: ({ city }) => `21 in ${city}` },
        },
      ],
    });
    assert.equal(await runner.finalContent(), 'It is 21 degrees.');
  },
  async 'openai: errors'() {
    const missing = await rejected(openai.chat.completions.create({ model: 'other', messages: user('x') }));
    assert.equal(missing.status, 404);
    assert.equal(missing.code, 'model_not_found');
    const stranger = new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 });
    assert.equal((await rejected(stranger.models.list())).status, 401);
    const long = await rejected(
      openai.chat.completions.create({ model, messages: user('hello'), max_tokens: 2 ** 30 }),
    );
    assert.equal(long.code, 'context_length_exceeded');
    const inside = await rejected(
      all(await openai.chat.completions.create({ model, messages: user('fail'), stream: true })),
    );
    assert.match(inside.message, /went wrong inside/);
  },
  async 'openai: abort by break, controller and signal'() {
    for await (const _ of await openai.chat.completions.create({ model, messages: user('long'), stream: true })) break;
    await idle();
    const stream = await openai.chat.completions.create({ model, messages: user('long'), stream: true });
    setTimeout(() => stream.controller.abort(), 20);
    await all(stream);
    await idle();
    await rejected(
      openai.chat.completions.create({ model, messages: user('long') }, { signal: AbortSignal.timeout(50) }),
    );
    await idle();
  },
  async 'openai: models and completions'() {
    const list = await openai.models.list();
    assert.equal(list.data[0].id, model);
    assert.equal((await openai.models.retrieve(model)).object, 'model');
    const whole = await openai.completions.create({ model, prompt: 'x', max_tokens: 5 });
    assert.equal(whole.choices[0].finish_reason, 'length');
    const chunks = await all(await openai.completions.create({ model, prompt: 'x', stream: true, max_tokens: 100 }));
    assert.equal(chunks.map((c) => c.choices[0].text).join(''), 'Hello from here.');
  },
  async 'ai compatible: generateText'() {
    const { text, usage, finishReason } = await generateText({ model: compatible, prompt: 'hello' });
    assert.deepEqual([text, finishReason], ['Hello from here.', 'stop']);
    assert.ok(usage.totalTokens > 0);
  },
  async 'ai compatible: streamText'() {
    const result = streamText({ model: compatible, prompt: 'emoji' });
    assert.equal((await all(result.textStream)).join(''), '🙂 naïve 日本');
    assert.ok((await result.usage).outputTokens > 0);
    assert.equal(await result.finishReason, 'stop');
  },
  async 'ai compatible: tool loop'() {
    const { text, steps } = await generateText({
      model: compatible,
      prompt: 'weather',
      tools: { get_weather: sdkWeather },
      stopWhen: stepCountIs(4),
    });
    assert.equal(text, 'It is 21 degrees.');
    assert.equal(steps.length, 2);
  },
  async 'ai compatible: tool loop in a stream'() {
    const result = streamText({
      model: compatible,
      prompt: 'weather',
      tools: { get_weather: sdkWeather },
      stopWhen: stepCountIs(4),
    });
    assert.equal((await all(result.textStream)).join(''), 'It is 21 degrees.');
    assert.equal((await result.steps).length, 2);
  },
  async 'ai openai chat: generateText, streamText, abort'() {
    assert.equal((await generateText({ model: chatSdk, prompt: 'hello' })).text, 'Hello from here.');
    assert.equal((await all(streamText({ model: chatSdk, prompt: 'hello' }).textStream)).join(''), 'Hello from here.');
    const controller = new AbortController();
    const { textStream } = streamText({ model: chatSdk, prompt: 'long', abortSignal: controller.signal, onError() {} });
    for await (const _ of textStream) controller.abort();
    await idle();
  },
  async 'ai openai chat: logprobs'() {
    const result = await generateText({
      model: chatSdk,
      prompt: 'hello',
      providerOptions: { openai: { logprobs: 2 } },
    });
    assert.ok(result.providerMetadata.openai.logprobs.length > 3);
  },
  async 'langchain: invoke'() {
    const message = await langchain().invoke([new SystemMessage('brief'), new HumanMessage('hello')]);
    assert.equal(message.content, 'Hello from here.');
    assert.ok(message.usage_metadata.total_tokens > 0);
  },
  async 'langchain: stream'() {
    const chunks = await all(await langchain().stream('hello'));
    const whole = chunks.reduce((sum, chunk) => sum.concat(chunk));
    assert.equal(whole.content, 'Hello from here.');
    assert.ok(whole.usage_metadata.output_tokens > 0);
  },
  async 'langchain: tools'() {
    const bound = langchain().bindTools([langchainWeather]);
    const question = new HumanMessage('weather');
    const asked = await bound.invoke([question]);
    assert.deepEqual(
      asked.tool_calls.map(({ name, args }) => [name, args]),
      [['get_weather', { city: 'Paris' }]],
    );
    const answer = await bound.invoke([
      question,
      asked,
      new ToolMessage({ content: '21', tool_call_id: asked.tool_calls[0].id }),
    ]);
    assert.equal(answer.content, 'It is 21 degrees.');
    const streamed = (await all(await bound.stream('weather'))).reduce((sum, chunk) => sum.concat(chunk));
    assert.deepEqual(streamed.tool_calls[0].args, { city: 'Paris' });
  },
  async 'langchain: abort'() {
    for await (const _ of await langchain().stream('long')) break;
    await idle();
    await rejected(langchain().invoke('long', { signal: AbortSignal.timeout(50) }));
    await idle();
  },
};

const tools = [{ type: 'function', name: 'get_weather', description: 'Weather now', parameters, strict: null }];

const responses = {
  async 'openai: responses.create'() {
    const response = await openai.responses.create({ model, input: 'hello', instructions: 'brief' });
    assert.equal(response.output_text, 'Hello from here.');
    assert.equal(response.status, 'completed');
    assert.ok(response.usage.total_tokens > 0);
  },
  async 'openai: responses.create with stream'() {
    const events = await all(await openai.responses.create({ model, input: 'hello', stream: true }));
    assert.deepEqual(
      events.slice(0, 2).map(({ type }) => type),
      ['response.created', 'response.in_progress'],
    );
    assert.equal(
      events
        .filter(({ type }) => type === 'response.output_text.delta')
        .map(({ delta }) => delta)
        .join(''),
      'Hello from here.',
    );
    assert.deepEqual(
      events.map((event) => event.sequence_number),
      events.map((_, i) => i),
    );
  },
  async 'openai: responses.stream helper'() {
    const response = await openai.responses.stream({ model, input: 'hello' }).finalResponse();
    assert.equal(response.output_text, 'Hello from here.');
  },
  async 'openai: responses with a function'() {
    const input = user('weather');
    const first = await openai.responses.create({ model, input, tools });
    const call = first.output.find(({ type }) => type === 'function_call');
    assert.deepEqual(JSON.parse(call.arguments), { city: 'Paris' });
    const output = { type: 'function_call_output', call_id: call.call_id, output: '21' };
    const second = await openai.responses.create({ model, input: [...input, ...first.output, output], tools });
    assert.equal(second.output_text, 'It is 21 degrees.');
  },
  async 'openai: responses.stream with a function'() {
    const response = await openai.responses.stream({ model, input: 'weather', tools }).finalResponse();
    assert.equal(response.output.at(-1).name, 'get_weather');
  },
  async 'openai: responses errors and length'() {
    const refused = await rejected(openai.responses.create({ model, input: 'x', previous_response_id: 'resp_1' }));
    assert.deepEqual([refused.status, refused.param], [400, 'previous_response_id']);
    const short = await openai.responses.create({ model, input: 'hello', max_output_tokens: 3 });
    assert.deepEqual([short.status, short.incomplete_details.reason], ['incomplete', 'max_output_tokens']);
    const inside = await rejected(all(await openai.responses.create({ model, input: 'fail', stream: true })));
    assert.match(inside.message, /went wrong inside/);
  },
  async 'ai openai responses: generateText'() {
    const { text, usage, finishReason } = await generateText({ model: responsesSdk, prompt: 'hello' });
    assert.deepEqual([text, finishReason], ['Hello from here.', 'stop']);
    assert.ok(usage.totalTokens > 0);
  },
  async 'ai openai responses: streamText'() {
    const result = streamText({ model: responsesSdk, prompt: 'hello' });
    assert.equal((await all(result.textStream)).join(''), 'Hello from here.');
    assert.ok((await result.usage).totalTokens > 0);
  },
  async 'ai openai responses: tool loop, whole and in a stream'() {
    const asked = {
      model: responsesSdk,
      prompt: 'talk and weather',
      tools: { get_weather: sdkWeather },
      stopWhen: stepCountIs(4),
    };
    assert.equal((await generateText(asked)).text, 'It is 21 degrees.');
    const result = streamText(asked);
    assert.match((await all(result.textStream)).join(''), /It is 21 degrees\.$/);
    assert.equal((await result.steps).length, 2);
  },
  async 'langchain responses: invoke and stream'() {
    assert.equal((await langchainResponses().invoke('hello')).text, 'Hello from here.');
    const whole = (await all(await langchainResponses().stream('hello'))).reduce((sum, chunk) => sum.concat(chunk));
    assert.equal(whole.text, 'Hello from here.');
    assert.ok(whole.usage_metadata.total_tokens > 0);
  },
  async 'langchain responses: tools'() {
    const bound = langchainResponses().bindTools([langchainWeather]);
    const question = new HumanMessage('weather');
    const asked = await bound.invoke([question]);
    assert.deepEqual(asked.tool_calls[0].args, { city: 'Paris' });
    const answer = await bound.invoke([
      question,
      asked,
      new ToolMessage({ content: '21', tool_call_id: asked.tool_calls[0].id }),
    ]);
    assert.equal(answer.text, 'It is 21 degrees.');
  },
};

const extra = {
  async 'n = 3'() {
    const { choices } = await openai.chat.completions.create({ model, messages: user('which'), n: 3 });
    assert.deepEqual(
      choices.map((c) => c.message.content),
      ['answer 0', 'answer 1', 'answer 2'],
    );
  },
  async logprobs() {
    const { choices } = await openai.chat.completions.create({
      model,
      messages: user('hello'),
      logprobs: true,
      top_logprobs: 3,
    });
    assert.equal(choices[0].logprobs.content[0].top_logprobs.length, 3);
  },
  async 'a seed repeats'() {
    const draw = async () =>
      (await openai.chat.completions.create({ model, messages: user('seed'), seed: 11 })).choices[0].message.content;
    assert.equal(await draw(), 'seed 11');
    assert.equal(await draw(), await draw());
  },
  async 'a stop text over two tokens'() {
    const { choices } = await openai.chat.completions.create({ model, messages: user('hello'), stop: ['from'] });
    assert.equal(choices[0].message.content, 'Hello ');
  },
  async 'an emoji of four bytes'() {
    const chunks = await all(await openai.chat.completions.create({ model, messages: user('emoji'), stream: true }));
    const texts = chunks.map((c) => c.choices[0].delta.content ?? '');
    assert.equal(texts.join(''), '🙂 naïve 日本');
    assert.ok(texts.every((text) => !text.includes('\ufffd')));
  },
  async 'a tool schema of 200 KB'() {
    const enumeration = Array.from({ length: 10_000 }, (_, i) => `value number ${i}`);
    const big = { ...weather.function, parameters: { ...parameters, properties: { city: { enum: enumeration } } } };
    const { choices } = await openai.chat.completions.create({
      model,
      messages: user('weather'),
      tools: [{ type: 'function', function: big }],
    });
    assert.equal(choices[0].finish_reason, 'tool_calls');
  },
  async 'a tool schema of 1 MB is refused by name'() {
    const big = { ...weather.function, parameters: { ...parameters, description: 'x'.repeat(1 << 20) } };
    const error = await rejected(
      openai.chat.completions.create({
        model,
        messages: user('weather'),
        tools: [{ type: 'function', function: big }],
      }),
    );
    assert.equal(error.param, 'tools[0].function.parameters');
  },
  async 'embeddings are refused by name'() {
    const error = await rejected(openai.embeddings.create({ model, input: 'x' }));
    assert.deepEqual([error.status, error.code], [400, 'embeddings_not_supported']);
  },
};

for (const [kind, scenarios] of Object.entries({ chat, responses, extra }))
  for (const [name, run] of Object.entries(scenarios)) {
    let error = null;
    try {
      await run();
    } catch (caught) {
      error = `${caught?.stack ?? caught}`.slice(0, 1500);
    }
    console.log(JSON.stringify({ name: `${kind}: ${name}`, error }));
  }
