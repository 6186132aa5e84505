/** GET /v1/models and /v1/models/{id}; tokens and embeddings of the model. */
import { ApiError } from '../http/api-error';
import type { Call } from '../http/call';
import { detokenizeRequest, embeddingsRequest, tokenizeRequest } from '../requests/other-requests';
import type { Service } from '../service';

function card({ model, created }: Service): object {
  return { id: model.id, object: 'model', created, owned_by: 'local', max_model_len: model.contextTokens };
}

export function listModels(service: Service, call: Call): void {
  call.send(200, { object: 'list', data: [card(service)] });
}

export function showModel(service: Service, call: Call, id: string): void {
  service.checkModel(id);
  call.send(200, card(service));
}

export async function tokenize(service: Service, call: Call): Promise<void> {
  const { model: name, prompt, add_special_tokens = true } = await service.parse(call, tokenizeRequest);
  if (name !== undefined) service.checkModel(name);
  const { model } = service;
  const tokens = model.encode(prompt, add_special_tokens);
  call.send(200, { count: tokens.length, max_model_len: model.contextTokens, tokens });
}

export async function detokenize(service: Service, call: Call): Promise<void> {
  const { model: name, tokens } = await service.parse(call, detokenizeRequest);
  if (name !== undefined) service.checkModel(name);
  const { model } = service;
  const wrong = tokens.find((id) => id >= model.vocabSize);
  if (wrong !== undefined)
    throw ApiError.invalid(`expected ids below ${model.vocabSize}, got ${wrong}`, 'tokens', 'invalid_value');
  call.send(200, { prompt: model.decode(tokens) });
}

export async function embed(service: Service, call: Call): Promise<void> {
  const { model } = await service.parse(call, embeddingsRequest);
  service.checkModel(model);
  throw ApiError.invalid('This model gives no embeddings.', 'model', 'embeddings_not_supported');
}
