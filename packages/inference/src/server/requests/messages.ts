/** Messages of a conversation and tools, as the chat endpoint takes them. */
import { z } from 'zod';
import { fieldLimits } from '../limits';
import { flag, optional } from './fields';

const textPart = z.strictObject({
  type: z.enum(['text', 'refusal']),
  text: optional(z.string()),
  refusal: optional(z.string()),
});

/** Text, or parts of it, as one text. Nothing is fetched for a request, so images and files are refused here. */
export const textContent = z
  .preprocess(
    (value) => (typeof value === 'string' ? [{ type: 'text', text: value }] : value),
    z
      .array(
        z.preprocess((part, context) => {
          const type = (part as { type?: unknown } | null)?.type;
          if (typeof type === 'string' && !['text', 'refusal'].includes(type))
            context.issues.push({ code: 'custom', message: 'this model reads text only', input: part });
          return part;
        }, textPart),
      )
      .max(fieldLimits.parts),
  )
  .transform((parts) => parts.map(({ text, refusal }) => text ?? refusal ?? '').join('\n'));

const toolCall = z.strictObject({
  id: z.string().max(256),
  type: optional(z.literal('function')),
  function: z.strictObject({ name: z.string().min(1).max(fieldLimits.nameChars), arguments: z.string() }),
  index: optional(z.unknown()),
});

const name = optional(z.string().max(256));

export const message = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), content: textContent, name }),
  z.strictObject({ role: z.literal('developer'), content: textContent, name }),
  z.strictObject({ role: z.literal('user'), content: textContent, name }),
  z.strictObject({
    role: z.literal('assistant'),
    content: optional(textContent),
    name,
    tool_calls: optional(z.array(toolCall).max(fieldLimits.tools)),
  }),
  z.strictObject({ role: z.literal('tool'), content: textContent, tool_call_id: z.string().max(256), name }),
]);

export type Message = z.output<typeof message>;

export const messages = z.array(message).min(1).max(fieldLimits.messages);

/** A JSON Schema; what it means is not looked at here, and nothing that it refers to is fetched. */
export const jsonSchema = z
  .record(z.string(), z.unknown())
  .refine((schema) => JSON.stringify(schema).length <= fieldLimits.schemaChars, {
    message: `expected a schema of at most ${fieldLimits.schemaChars} characters`,
  });

const functionName = z.string().regex(/^[\w.-]{1,64}$/, 'expected up to 64 letters, digits, "_", "-" or "."');

export const functionFields = {
  name: functionName,
  description: optional(z.string()),
  parameters: optional(jsonSchema),
  strict: flag,
};

export interface FunctionTool {
  readonly name: string;
  readonly description?: string | undefined;
  readonly parameters?: Readonly<Record<string, unknown>> | undefined;
}

const functionTool = z.strictObject({ type: z.literal('function'), function: z.strictObject(functionFields) });

export const tools = optional(z.array(functionTool).max(fieldLimits.tools));

export const toolChoice = optional(
  z.union([
    z.enum(['auto', 'none', 'required']),
    z.object({ type: z.literal('function'), function: z.object({ name: functionName }) }),
  ]),
);

export const responseFormat = optional(
  z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('text') }),
    z.strictObject({ type: z.literal('json_object') }),
    z.strictObject({
      type: z.literal('json_schema'),
      json_schema: z.strictObject({
        name: functionName,
        description: optional(z.string()),
        strict: flag,
        schema: optional(jsonSchema),
      }),
    }),
  ]),
);
