/** The body of POST /v1/chat/completions. */
import { z } from 'zod';
import { fieldLimits } from '../limits';
import { flag, idleFields, model, optional, samplingFields, streamFields, whole } from './fields';
import { messages, responseFormat, toolChoice, tools } from './messages';

export const chatRequest = z.strictObject({
  model,
  messages,
  max_tokens: whole(1, 2 ** 31 - 1),
  max_completion_tokens: whole(1, 2 ** 31 - 1),
  logprobs: flag,
  top_logprobs: whole(0, fieldLimits.logprobs),
  tools,
  tool_choice: toolChoice,
  parallel_tool_calls: flag,
  response_format: responseFormat,
  /** Given to the template as they are. */
  chat_template_kwargs: optional(z.record(z.string(), z.union([z.boolean(), z.number(), z.string().max(1_024)]))),
  ...samplingFields,
  ...streamFields,
  ...idleFields,
});

export type ChatRequest = z.output<typeof chatRequest>;
