/** Building blocks of request schemas. */
import { z } from 'zod';
import { fieldLimits } from '../limits';

/** A field that may be left out. `null` says the same: clients send it for what they have no value for. */
export function optional<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

export const flag = optional(z.boolean());

export function whole(least: number, most: number) {
  return optional(z.number().int().min(least).max(most));
}

/** Text and a list of texts are the same. */
const stop = z.preprocess(
  (value) => (typeof value === 'string' ? [value] : value),
  optional(z.array(z.string().min(1).max(fieldLimits.stopChars)).max(fieldLimits.stops)),
);

/** How tokens are drawn; the same for every kind of request. */
export const samplingFields = {
  temperature: optional(z.number().min(0).max(2)),
  top_p: optional(z.number().min(0).max(1)),
  /** 0 and -1: from all. */
  top_k: optional(
    z
      .number()
      .int()
      .min(-1)
      .max(2 ** 31 - 1),
  ),
  min_p: optional(z.number().min(0).max(1)),
  seed: whole(0, Number.MAX_SAFE_INTEGER - fieldLimits.answers),
  stop,
  n: whole(1, fieldLimits.answers),
  presence_penalty: optional(z.number().min(-2).max(2)),
  frequency_penalty: optional(z.number().min(-2).max(2)),
  repetition_penalty: optional(z.number().min(0.01).max(100)),
  logit_bias: optional(
    z.record(z.string().regex(/^\d{1,9}$/, 'expected the id of a token'), z.number().min(-100).max(100)),
  ).refine(
    (biases) => Object.keys(biases ?? {}).length <= fieldLimits.biases,
    `expected at most ${fieldLimits.biases} entries`,
  ),
  ignore_eos: flag,
};

export const streamFields = {
  stream: flag,
  stream_options: optional(z.strictObject({ include_usage: flag, include_obfuscation: flag })),
};

/** Understood, and without effect on the answer. They are named in `x-ds-ignored-fields`. */
export const idleFields = {
  user: optional(z.unknown()),
  metadata: optional(z.unknown()),
  store: optional(z.unknown()),
  service_tier: optional(z.unknown()),
  prompt_cache_key: optional(z.unknown()),
  prompt_cache_retention: optional(z.unknown()),
  safety_identifier: optional(z.unknown()),
  reasoning_effort: optional(z.unknown()),
  verbosity: optional(z.unknown()),
};

export const model = z.string().min(1).max(256);
