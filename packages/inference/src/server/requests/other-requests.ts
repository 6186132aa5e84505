/** The bodies of the small endpoints: tokens and embeddings. */
import { z } from 'zod';
import { fieldLimits } from '../limits';
import { flag, idleFields, model, optional, whole } from './fields';

const ids = z.array(
  z
    .number()
    .int()
    .min(0)
    .max(2 ** 31 - 1),
);

export const tokenizeRequest = z.strictObject({ model: optional(model), prompt: z.string(), add_special_tokens: flag });

export const detokenizeRequest = z.strictObject({ model: optional(model), tokens: ids });

export const embeddingsRequest = z.strictObject({
  model,
  input: z.union([
    z.string(),
    z.array(z.string()).max(fieldLimits.embeddingInputs),
    ids,
    z.array(ids).max(fieldLimits.embeddingInputs),
  ]),
  encoding_format: optional(z.enum(['float', 'base64'])),
  dimensions: whole(1, 2 ** 20),
  ...idleFields,
});
