/** POST /v1/chat/completions: a conversation goes on. */
import { randomUUID } from 'node:crypto';
import { type ChatLogprob, chatLogprob } from '../answers/logprobs';
import { type FinishReason, type Piece, piecesOf, Usage } from '../answers/pieces';
import { promptOf } from '../chat/conversation';
import type { ToolCall } from '../chat/tool-format';
import { ApiError } from '../http/api-error';
import type { Call } from '../http/call';
import { type ChatRequest, chatRequest } from '../requests/chat-request';
import { servedOptions } from '../requests/served-options';
import type { ServedModel } from '../served-model';
import type { Service } from '../service';

export async function completeChat(service: Service, call: Call): Promise<void> {
  const request = await service.parse(call, chatRequest);
  service.checkModel(request.model);
  checkBuilt(request);
  const { model } = service;
  const { ids, toolFormat } = await promptOf(model, service.renderer, {
    messages: request.messages,
    tools: request.tool_choice === 'none' ? [] : (request.tools ?? []).map((tool) => tool.function),
    templateOptions: request.chat_template_kwargs,
  });
  const maxTokens = request.max_completion_tokens ?? request.max_tokens;
  const options = {
    ...servedOptions(request, { model, promptTokens: ids.length, maxTokens }),
    ...(request.logprobs ? { logprobs: request.top_logprobs ?? 0 } : {}),
  };
  const tokens = service.submit(call, ids, options);
  const pieces = piecesOf(tokens, { toolFormat, oneCall: request.parallel_tool_calls === false });
  const answer = new ChatAnswer(request, model, new Usage(ids.length));
  if (request.stream) await answer.stream(call, pieces);
  else call.send(200, await answer.whole(pieces));
}

/** What asks for a certain form of the answer is refused until that form can be promised. */
function checkBuilt({ response_format, tool_choice, tools, logprobs, top_logprobs }: ChatRequest): void {
  if (response_format && response_format.type !== 'text')
    throw ApiError.notBuilt(`response_format of type "${response_format.type}"`, 'response_format');
  checkToolChoice(tool_choice, tools?.map((tool) => tool.function.name) ?? []);
  if (top_logprobs !== undefined && !logprobs)
    throw ApiError.invalid('top_logprobs needs logprobs: true', 'top_logprobs', 'invalid_value');
}

/** @throws ApiError 400 for a choice without tools, or one that would need a form to be promised */
export function checkToolChoice(choice: unknown, tools: readonly string[]): void {
  if (choice === undefined || choice === 'auto' || choice === 'none') return;
  if (tools.length === 0) throw ApiError.invalid('tool_choice needs tools', 'tool_choice', 'invalid_value');
  throw ApiError.notBuilt('tool_choice that forces a call', 'tool_choice');
}

/** One answer to one request, in either of its shapes. */
class ChatAnswer {
  readonly #request: ChatRequest;
  readonly #model: ServedModel;
  readonly #usage: Usage;
  readonly #id = `chatcmpl-${randomUUID().replaceAll('-', '')}`;
  readonly #created = Math.floor(Date.now() / 1000);

  constructor(request: ChatRequest, model: ServedModel, usage: Usage) {
    this.#request = request;
    this.#model = model;
    this.#usage = usage;
  }

  async whole(pieces: AsyncIterable<Piece>): Promise<object> {
    const choices = Array.from({ length: this.#request.n ?? 1 }, () => new WholeChoice());
    for await (const piece of pieces) {
      this.#usage.count(piece);
      choices[piece.choice]!.add(piece, this.#logprobOf(piece));
    }
    return {
      ...this.#head('chat.completion'),
      choices: choices.map((choice, index) => choice.toJSON(index, this.#request.logprobs === true)),
      usage: this.#usage.toJSON(),
    };
  }

  async stream(call: Call, pieces: AsyncIterable<Piece>): Promise<void> {
    const events = call.events();
    const withUsage = this.#request.stream_options?.include_usage === true;
    const chunk = (choices: readonly object[], usage: object | null = null) =>
      events.send({ ...this.#head('chat.completion.chunk'), choices, ...(withUsage ? { usage } : {}) });
    const begun = new Set<number>();
    const calls = new Map<number, number>();
    for await (const piece of pieces) {
      this.#usage.count(piece);
      const { choice: index, text, finish } = piece;
      const change = (delta: object, logprobs: object | null = null, finish_reason: string | null = null) =>
        chunk([{ index, delta, logprobs, finish_reason }]);
      if (!begun.has(index)) await change({ role: 'assistant', content: '' });
      begun.add(index);
      const logprob = this.#logprobOf(piece);
      if (text !== '' || logprob)
        await change({ content: text }, logprob ? { content: [logprob], refusal: null } : null);
      for (const toolCall of piece.calls) {
        const place = calls.get(index) ?? 0;
        calls.set(index, place + 1);
        for (const part of toolCallDeltas(toolCall, place)) await change({ tool_calls: [part] });
      }
      if (finish) await change({}, null, finish);
    }
    if (withUsage) await chunk([], this.#usage.toJSON());
    await events.sendText('[DONE]');
    events.end();
  }

  #head(object: string) {
    return { id: this.#id, object, created: this.#created, model: this.#model.id };
  }

  #logprobOf({ token }: Piece): ChatLogprob | undefined {
    return this.#request.logprobs ? chatLogprob(this.#model, token) : undefined;
  }
}

/** Clients want the name in one and the arguments in another. */
function toolCallDeltas({ id, name, arguments: passed }: ToolCall, index: number): object[] {
  return [
    { index, id, type: 'function', function: { name, arguments: '' } },
    { index, function: { arguments: passed } },
  ];
}

class WholeChoice {
  #text = '';
  #finish: FinishReason = 'stop';
  readonly #calls: ToolCall[] = [];
  readonly #logprobs: ChatLogprob[] = [];

  add({ text, calls, finish }: Piece, logprob: ChatLogprob | undefined): void {
    this.#text += text;
    this.#calls.push(...calls);
    if (logprob) this.#logprobs.push(logprob);
    if (finish) this.#finish = finish;
  }

  toJSON(index: number, withLogprobs: boolean): object {
    const tool_calls = this.#calls.map(({ id, name, arguments: passed }) => ({
      id,
      type: 'function',
      function: { name, arguments: passed },
    }));
    const called = tool_calls.length > 0;
    return {
      index,
      message: {
        role: 'assistant',
        content: called && this.#text === '' ? null : this.#text,
        refusal: null,
        ...(called ? { tool_calls } : {}),
      },
      logprobs: withLogprobs ? { content: this.#logprobs, refusal: null } : null,
      finish_reason: this.#finish,
    };
  }
}
