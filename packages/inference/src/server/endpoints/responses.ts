/** POST /v1/responses: OpenAI's newer API, with texts and functions. */
import { type FinishReason, type Piece, piecesOf, Usage } from '../answers/pieces';
import { promptOf } from '../chat/conversation';
import { ApiError } from '../http/api-error';
import type { Call } from '../http/call';
import { type ResponsesRequest, responsesRequest } from '../requests/responses-request';
import { servedOptions } from '../requests/served-options';
import { messagesOf, resolvedItems } from '../responses/conversation-items';
import { newId, type OutputItem, OutputItems, type ResponseEvent } from '../responses/output-items';
import type { Service } from '../service';
import { checkToolChoice } from './chat-completions';

export async function respond(service: Service, call: Call): Promise<void> {
  const request = await service.parse(call, responsesRequest);
  service.checkModel(request.model);
  checkBuilt(request);
  const { model, renderer, items } = service;
  const { ids, toolFormat } = await promptOf(model, renderer, {
    messages: messagesOf(request.instructions, resolvedItems(request.input, items, call.owner)),
    tools: request.tool_choice === 'none' ? [] : (request.tools ?? []),
  });
  const options = servedOptions(request, { model, promptTokens: ids.length, maxTokens: request.max_output_tokens });
  const tokens = service.submit(call, ids, options);
  const pieces = piecesOf(tokens, { toolFormat, oneCall: request.parallel_tool_calls === false });
  const answer = new ResponseAnswer(request, new Usage(ids.length));
  if (request.stream) await answer.stream(call, pieces);
  else call.send(200, await answer.whole(pieces));
  if (request.store !== false) for (const item of answer.items) items.put(item.id, asInput(item), call.owner);
}

function checkBuilt(request: ResponsesRequest): void {
  const {
    text,
    background,
    previous_response_id,
    conversation,
    truncation,
    tool_choice,
    tools,
    top_logprobs = 0,
    include = [],
  } = request;
  if (text?.format && text.format.type !== 'text')
    throw ApiError.notBuilt(`text.format of type "${text.format.type}"`, 'text.format');
  if (background) throw ApiError.notBuilt('background', 'background');
  if (previous_response_id !== undefined || conversation !== undefined)
    throw ApiError.invalid(
      'Responses are not stored as a whole: send the conversation as input.',
      previous_response_id === undefined ? 'conversation' : 'previous_response_id',
      'previous_response_not_found',
    );
  if (truncation === 'auto') throw ApiError.notBuilt('truncation "auto"', 'truncation');
  if (top_logprobs > 0 || include.includes('message.output_text.logprobs'))
    throw ApiError.notBuilt('logprobs of a response', top_logprobs > 0 ? 'top_logprobs' : 'include');
  checkToolChoice(tool_choice, tools?.map(({ name }) => name) ?? []);
}

/** As it would be sent back. */
function asInput(item: OutputItem) {
  const common = { id: item.id, status: item.status };
  if (item.type === 'function_call')
    return { type: item.type, call_id: item.call_id, name: item.name, arguments: item.arguments, ...common };
  const content = item.content.map(({ text }) => text).join('\n');
  return { type: item.type, role: item.role, content, phase: undefined, ...common };
}

class ResponseAnswer {
  readonly #request: ResponsesRequest;
  readonly #usage: Usage;
  readonly #output = new OutputItems();
  readonly #id = newId('resp');
  readonly #created = Math.floor(Date.now() / 1000);
  #finish: FinishReason | undefined;

  constructor(request: ResponsesRequest, usage: Usage) {
    this.#request = request;
    this.#usage = usage;
  }

  get items(): readonly OutputItem[] {
    return this.#output.items;
  }

  async whole(pieces: AsyncIterable<Piece>): Promise<object> {
    for await (const _ of this.#events(pieces));
    return this.#object(this.#status);
  }

  async stream(call: Call, pieces: AsyncIterable<Piece>): Promise<void> {
    const events = call.events();
    let sequence_number = 0;
    call.errorEvent = ({ error }) => ({ event: 'error', value: { ...error, type: 'error', sequence_number, error } });
    for await (const event of this.#events(pieces))
      await events.send({ ...event, sequence_number: sequence_number++ }, event.type);
    events.end();
  }

  async *#events(pieces: AsyncIterable<Piece>): AsyncGenerator<ResponseEvent, void> {
    yield { type: 'response.created', response: this.#object('in_progress') };
    yield { type: 'response.in_progress', response: this.#object('in_progress') };
    for await (const piece of pieces) {
      this.#usage.count(piece);
      this.#finish = piece.finish ?? this.#finish;
      yield* this.#output.take(piece);
    }
    yield* this.#output.end(this.#status);
    yield { type: `response.${this.#status}`, response: this.#object(this.#status) };
  }

  get #status(): 'completed' | 'incomplete' {
    return this.#finish === 'length' ? 'incomplete' : 'completed';
  }

  #object(status: 'in_progress' | 'completed' | 'incomplete'): object {
    const {
      model,
      instructions,
      max_output_tokens,
      tools = [],
      tool_choice,
      parallel_tool_calls,
      store,
    } = this.#request;
    const { promptTokens, completionTokens } = this.#usage;
    return {
      id: this.#id,
      object: 'response',
      created_at: this.#created,
      status,
      background: false,
      error: null,
      incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
      instructions: instructions ?? null,
      max_output_tokens: max_output_tokens ?? null,
      model,
      output: status === 'in_progress' ? [] : this.#output.items,
      parallel_tool_calls: parallel_tool_calls ?? true,
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      store: store ?? true,
      temperature: this.#request.temperature ?? 1,
      text: { format: { type: 'text' } },
      tool_choice: tool_choice ?? 'auto',
      tools,
      top_p: this.#request.top_p ?? 1,
      truncation: 'disabled',
      usage:
        status === 'in_progress'
          ? null
          : {
              input_tokens: promptTokens,
              input_tokens_details: { cached_tokens: 0 },
              output_tokens: completionTokens,
              output_tokens_details: { reasoning_tokens: 0 },
              total_tokens: promptTokens + completionTokens,
            },
      user: null,
      metadata: {},
    };
  }
}
