/** The body of POST /v1/completions. */
import { z } from 'zod';
import { fieldLimits } from '../limits';
import { flag, idleFields, model, optional, samplingFields, streamFields, whole } from './fields';

const ids = z
  .array(
    z
      .number()
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  )
  .min(1);

/** One prompt or many, each a text or ids. */
const prompt = z.union([
  z.string().transform((text) => [text]),
  ids.transform((list) => [list]),
  z.array(z.string()).min(1).max(fieldLimits.prompts),
  z.array(ids).min(1).max(fieldLimits.prompts),
]);

export const completionRequest = z.strictObject({
  model,
  prompt,
  max_tokens: whole(1, 2 ** 31 - 1),
  logprobs: whole(0, fieldLimits.logprobs),
  echo: flag,
  suffix: optional(z.string()),
  best_of: whole(1, fieldLimits.answers),
  ...samplingFields,
  ...streamFields,
  ...idleFields,
});

export type CompletionRequest = z.output<typeof completionRequest>;
