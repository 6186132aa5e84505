/** POST /v1/completions: texts go on. */
import { randomUUID } from 'node:crypto';
import { CompletionLogprobs } from '../answers/logprobs';
import { merged } from '../answers/merge';
import { type FinishReason, type Piece, piecesOf, Usage } from '../answers/pieces';
import { ApiError } from '../http/api-error';
import type { Call } from '../http/call';
import { type CompletionRequest, completionRequest } from '../requests/completion-request';
import { servedOptions } from '../requests/served-options';
import type { ServedModel } from '../served-model';
import type { Service } from '../service';

/** As OpenAI's API; a conversation has no such bound. */
const DEFAULT_TOKENS = 16;

export async function complete(service: Service, call: Call): Promise<void> {
  const request = await service.parse(call, completionRequest);
  service.checkModel(request.model);
  checkBuilt(request);
  const { model } = service;
  const prompts = request.prompt.map((prompt) => idsOf(model, prompt));
  // All are checked before the first is begun.
  const options = prompts.map((ids) => ({
    ...servedOptions(request, {
      model,
      promptTokens: ids.length,
      maxTokens: request.max_tokens,
      defaultTokens: DEFAULT_TOKENS,
    }),
    ...(request.logprobs === undefined ? {} : { logprobs: request.logprobs }),
    ...(request.echo ? { echo: true } : {}),
    ...(request.echo && request.logprobs !== undefined ? { promptLogprobs: request.logprobs } : {}),
  }));
  const streams = prompts.map((ids, i) => piecesOf(service.submit(call, ids, options[i]!)));
  const usage = new Usage(prompts.reduce((sum, ids) => sum + ids.length, 0));
  const answer = new CompletionAnswer(request, model, usage);
  const pieces = numbered(merged(streams), request.n ?? 1);
  if (request.stream) await answer.stream(call, pieces);
  else call.send(200, await answer.whole(pieces));
}

function checkBuilt({ suffix, best_of, n = 1 }: CompletionRequest): void {
  if (suffix !== undefined && suffix !== '') throw ApiError.notBuilt('suffix', 'suffix');
  if (best_of !== undefined && best_of !== n) throw ApiError.notBuilt('best_of that differs from n', 'best_of');
}

function idsOf(model: ServedModel, prompt: string | readonly number[]): readonly number[] {
  if (typeof prompt === 'string') return model.encode(prompt, true);
  const wrong = prompt.find((id) => id >= model.vocabSize);
  if (wrong === undefined) return prompt;
  throw ApiError.invalid(`expected ids below ${model.vocabSize}, got ${wrong}`, 'prompt', 'invalid_value');
}

/** Answer j of prompt i is choice i n + j. */
async function* numbered(pieces: AsyncIterable<readonly [number, Piece]>, n: number): AsyncGenerator<Piece, void> {
  for await (const [prompt, piece] of pieces) yield { ...piece, choice: prompt * n + piece.choice };
}

class CompletionAnswer {
  readonly #request: CompletionRequest;
  readonly #model: ServedModel;
  readonly #usage: Usage;
  readonly #id = `cmpl-${randomUUID().replaceAll('-', '')}`;
  readonly #created = Math.floor(Date.now() / 1000);

  constructor(request: CompletionRequest, model: ServedModel, usage: Usage) {
    this.#request = request;
    this.#model = model;
    this.#usage = usage;
  }

  async whole(pieces: AsyncIterable<Piece>): Promise<object> {
    const { n = 1, prompt, logprobs: asked } = this.#request;
    const choices = Array.from({ length: prompt.length * n }, (_, index) => ({
      index,
      text: '',
      logprobs: asked === undefined ? null : new CompletionLogprobs(),
      finish_reason: 'stop' as FinishReason,
    }));
    for await (const piece of pieces) {
      this.#usage.count(piece);
      const choice = choices[piece.choice]!;
      choice.logprobs?.add(this.#model, piece.token, choice.text.length);
      choice.text += piece.text;
      if (piece.finish) choice.finish_reason = piece.finish;
    }
    return { ...this.#head(), choices, usage: this.#usage.toJSON() };
  }

  async stream(call: Call, pieces: AsyncIterable<Piece>): Promise<void> {
    const { stream_options, logprobs: asked } = this.#request;
    const events = call.events();
    const withUsage = stream_options?.include_usage === true;
    const offsets = new Map<number, number>();
    for await (const piece of pieces) {
      this.#usage.count(piece);
      const { choice: index, token, text, finish } = piece;
      if (text === '' && finish === undefined && asked === undefined) continue;
      const offset = offsets.get(index) ?? 0;
      offsets.set(index, offset + text.length);
      const logprobs = asked === undefined ? null : new CompletionLogprobs();
      logprobs?.add(this.#model, token, offset);
      const choices = [{ index, text, logprobs, finish_reason: finish ?? null }];
      await events.send({ ...this.#head(), choices, ...(withUsage ? { usage: null } : {}) });
    }
    if (withUsage) await events.send({ ...this.#head(), choices: [], usage: this.#usage.toJSON() });
    await events.sendText('[DONE]');
    events.end();
  }

  #head() {
    return { id: this.#id, object: 'text_completion', created: this.#created, model: this.#model.id };
  }
}
