/** The body of POST /v1/responses. */
import { z } from 'zod';
import { fieldLimits } from '../limits';
import { flag, idleFields, model, optional, samplingFields, streamFields, whole } from './fields';
import { functionFields } from './messages';

const text = z.strictObject({
  type: z.enum(['input_text', 'output_text', 'refusal']),
  text: optional(z.string()),
  refusal: optional(z.string()),
  annotations: optional(z.unknown()),
  logprobs: optional(z.unknown()),
});

/** Nothing is fetched for a request, so images and files are refused here. */
const content = z
  .preprocess(
    (value) => (typeof value === 'string' ? [{ type: 'input_text', text: value }] : value),
    z.array(text).max(fieldLimits.parts),
  )
  .transform((parts) => parts.map((part) => part.text ?? part.refusal ?? '').join('\n'));

const common = { id: optional(z.string().max(256)), status: optional(z.unknown()) };

const message = z.strictObject({
  type: z.literal('message'),
  role: z.enum(['system', 'developer', 'user', 'assistant']),
  content,
  phase: optional(z.unknown()),
  ...common,
});

const functionCall = z.strictObject({
  type: z.literal('function_call'),
  call_id: z.string().max(256),
  name: z.string().min(1).max(fieldLimits.nameChars),
  arguments: z.string(),
  ...common,
});

const functionOutput = z.strictObject({
  type: z.literal('function_call_output'),
  call_id: z.string().max(256),
  output: content,
  ...common,
});

const reference = z.strictObject({ type: z.literal('item_reference'), id: z.string().max(256) });

/** A message may leave its type out. */
const item = z.preprocess(
  (value) =>
    typeof value === 'object' && value !== null && 'role' in value && !('type' in value)
      ? Object.assign(value, { type: 'message' })
      : value,
  z.discriminatedUnion('type', [message, functionCall, functionOutput, reference]),
);

export type InputItem = z.output<typeof item>;
/** What a conversation is made of, references resolved. */
export type ConversationItem = Exclude<InputItem, { type: 'item_reference' }>;

const format = optional(
  z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('text') }),
    z.strictObject({ type: z.literal('json_object') }),
    z.looseObject({ type: z.literal('json_schema') }),
  ]),
);

const { stop: _, n: __, ...sampling } = samplingFields;

export const responsesRequest = z.strictObject({
  model,
  input: z.preprocess(
    (value) => (typeof value === 'string' ? [{ type: 'message', role: 'user', content: value }] : value),
    z.array(item).min(1).max(fieldLimits.messages),
  ),
  instructions: optional(z.string()),
  max_output_tokens: whole(1, 2 ** 31 - 1),
  tools: optional(z.array(z.strictObject({ type: z.literal('function'), ...functionFields })).max(fieldLimits.tools)),
  tool_choice: optional(
    z.union([z.enum(['auto', 'none', 'required']), z.object({ type: z.literal('function'), name: z.string() })]),
  ),
  parallel_tool_calls: flag,
  text: optional(z.strictObject({ format, verbosity: optional(z.unknown()) })),
  previous_response_id: optional(z.string()),
  conversation: optional(z.unknown()),
  include: optional(z.array(z.string().max(128)).max(32)),
  background: flag,
  truncation: optional(z.enum(['auto', 'disabled'])),
  top_logprobs: whole(0, fieldLimits.logprobs),
  ...sampling,
  ...streamFields,
  ...idleFields,
  store: flag,
});

export type ResponsesRequest = z.output<typeof responsesRequest>;
