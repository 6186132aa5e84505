/** From the sampling fields of a request to what the engine is asked for. */
import type { z } from 'zod';
import { ApiError } from '../http/api-error';
import type { ServedModel, ServedOptions } from '../served-model';
import type { samplingFields } from './fields';

type Sampling = { [K in keyof typeof samplingFields]?: z.output<(typeof samplingFields)[K]> | undefined };

/** Dividing logits by less would overflow, and the second most likely token could not come up anyway. */
const LEAST_HEAT = 1e-4;

export interface Room {
  readonly model: ServedModel;
  readonly promptTokens: number;
  /** As the request says; undefined: `defaultTokens`, or as many as there is room for. */
  readonly maxTokens: number | undefined;
  readonly defaultTokens?: number;
}

/** Checks what depends on the model, and leaves out what changes nothing. @throws ApiError 400 */
export function servedOptions(request: Sampling, room: Room): ServedOptions {
  const { temperature = 1, top_p = 1, top_k = 0, min_p = 0, seed, stop, n = 1, ignore_eos = false } = request;
  const { presence_penalty = 0, frequency_penalty = 0, repetition_penalty = 1, logit_bias = {} } = request;
  for (const id of Object.keys(logit_bias))
    if (Number(id) >= room.model.vocabSize)
      throw ApiError.invalid(`expected ids below ${room.model.vocabSize}, got ${id}`, 'logit_bias', 'invalid_value');
  // Almost without heat, or from the most likely token alone, there is nothing to draw.
  const greedy = temperature < LEAST_HEAT || top_p === 0 || top_k === 1;
  return {
    maxNewTokens: newTokens(room),
    n,
    ...(greedy
      ? { greedy }
      : {
          temperature,
          ...(top_p === 1 ? {} : { topP: top_p }),
          ...(top_k <= 0 ? {} : { topK: top_k }),
          ...(min_p === 0 ? {} : { minP: min_p }),
          ...(seed === undefined ? {} : { seed }),
        }),
    ...(presence_penalty === 0 ? {} : { presencePenalty: presence_penalty }),
    ...(frequency_penalty === 0 ? {} : { frequencyPenalty: frequency_penalty }),
    ...(repetition_penalty === 1 ? {} : { repetitionPenalty: repetition_penalty }),
    ...(Object.keys(logit_bias).length === 0 ? {} : { logitBias: logit_bias }),
    ...(stop === undefined || stop.length === 0 ? {} : { stop }),
    ...(ignore_eos ? { ignoreEos: true } : {}),
  };
}

function newTokens({ model, promptTokens, maxTokens, defaultTokens }: Room): number {
  const most = model.contextTokens - promptTokens;
  const wanted = maxTokens ?? Math.min(most, defaultTokens ?? most);
  if (promptTokens < 1) throw ApiError.invalid('The prompt has no tokens.', undefined, 'empty_prompt');
  if (most >= 1 && wanted <= most) return wanted;
  const asked = maxTokens === undefined ? '' : ` and ${maxTokens} to be written`;
  throw ApiError.invalid(
    `The model's context is ${model.contextTokens} tokens; the prompt has ${promptTokens}${asked}.`,
    undefined,
    'context_length_exceeded',
  );
}
