/** From messages and tools to the prompt that the model was trained on. */
import type { ChatTemplate } from '@ds/io';
import { ApiError } from '../http/api-error';
import type { FunctionTool, Message } from '../requests/messages';
import type { ServedModel } from '../served-model';
import type { TemplateRenderer } from './template-renderer';
import { type ToolFormat, toolFormatOf } from './tool-format';

export interface Conversation {
  readonly messages: readonly Message[];
  readonly tools: readonly FunctionTool[];
  readonly templateOptions?: Readonly<Record<string, unknown>> | undefined;
}

export interface Prompt {
  readonly ids: readonly number[];
  /** How the model spells calls of tools; undefined where the request has none. */
  readonly toolFormat: ToolFormat | undefined;
}

/** @throws ApiError 400 for a model without a template, or one whose template has no place for tools */
export async function promptOf(
  model: ServedModel,
  renderer: TemplateRenderer,
  { messages, tools, templateOptions = {} }: Conversation,
): Promise<Prompt> {
  const { chatTemplate } = model;
  if (!chatTemplate)
    throw ApiError.invalid(
      'This model has no chat template: it continues texts. Use /v1/completions.',
      'model',
      'no_chat_template',
    );
  const template = templateFor(chatTemplate, tools.length > 0);
  const toolFormat = tools.length > 0 ? toolFormatOf(template) : undefined;
  if (tools.length > 0 && !toolFormat)
    throw ApiError.invalid("This model's chat template has no place for tools.", 'tools', 'tools_not_supported');
  const context = {
    ...templateOptions,
    ...chatTemplate.tokens,
    messages: messages.map(templateMessage),
    ...(tools.length > 0 ? { tools: tools.map(templateTool) } : {}),
    add_generation_prompt: true,
  };
  const text = await renderer.render({ template, context });
  // Templates write begin-of-text tokens themselves.
  return { ids: model.encode(text, false), toolFormat };
}

function templateFor({ template, toolTemplate }: ChatTemplate, withTools: boolean): string {
  return withTools ? (toolTemplate ?? template) : template;
}

/** Templates know system, user, assistant and tool; and arguments as objects, which they turn into JSON themselves. */
function templateMessage(message: Message, index: number): object {
  const { role, content = '', name } = message;
  const named = name === undefined ? {} : { name };
  if (message.role === 'tool') return { role, content, tool_call_id: message.tool_call_id, ...named };
  if (message.role !== 'assistant' || !message.tool_calls?.length)
    return { role: role === 'developer' ? 'system' : role, content, ...named };
  const calls = message.tool_calls.map((call, place) => ({
    id: call.id,
    type: 'function',
    function: {
      name: call.function.name,
      arguments: parsedArguments(call.function.arguments, `messages[${index}].tool_calls[${place}].function.arguments`),
    },
  }));
  return { role, content, tool_calls: calls, ...named };
}

function parsedArguments(text: string, param: string): unknown {
  if (text.trim() === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {}
  throw ApiError.invalid(`${param}: expected a JSON object as text`, param, 'invalid_value');
}

function templateTool({ name, description, parameters }: FunctionTool): object {
  const described = description === undefined ? {} : { description };
  return {
    type: 'function',
    function: { name, ...described, parameters: parameters ?? { type: 'object', properties: {} } },
  };
}
