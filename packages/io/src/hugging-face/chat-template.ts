/** The chat template of a model folder: how a conversation becomes the text that the model was trained on. */
import { DsError } from '@ds/core-native';
import { readBoundedFile } from '../files/bounded-file';
import { isJsonObject, type JsonObject, type JsonValue, ownValue } from '../json/strict-json';
import { LIMITS } from '../limits';
import { findInside } from './inside-folder';
import { readJsonOf } from './model-folder';

/** A Jinja template, not yet parsed, and the texts of the tokens that it may name. */
export interface ChatTemplate {
  readonly template: string;
  /** A second template for requests with tools, where the folder has one. */
  readonly toolTemplate: string | undefined;
  /** `bos_token`, `eos_token` and such, as far as the folder names them. */
  readonly tokens: Readonly<Record<string, string>>;
}

const OP = 'readChatTemplate';
const TEMPLATE_FILE = 'chat_template.jinja';
const CONFIG_FILE = 'tokenizer_config.json';
const TOKENS = ['bos_token', 'eos_token', 'pad_token', 'unk_token'];

/**
 * Reads `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`: a template, or a list of named ones, of which
 * `default` and `tool_use` are taken.
 *
 * @returns undefined for a folder without one: its model continues texts and knows no conversations
 * @throws DsError IO, FORMAT, also for more than 256 KB
 */
export function readChatTemplate(folder: string): ChatTemplate | undefined {
  const config = readJsonOf(OP, folder, CONFIG_FILE) ?? {};
  const path = findInside(OP, folder, TEMPLATE_FILE);
  const own = path === undefined ? undefined : readBoundedFile(OP, path, LIMITS.chatTemplateBytes);
  const given = own ? new TextDecoder().decode(own) : ownValue(config, 'chat_template');
  if (given === undefined || given === null) return undefined;
  const named = namedTemplates(given, folder);
  const template = named.get('default');
  if (template === undefined) throw notATemplate(folder, 'a list without "default"');
  for (const text of named.values())
    if (text.length > LIMITS.chatTemplateBytes) throw notATemplate(folder, `${text.length} characters`);
  return { template, toolTemplate: named.get('tool_use'), tokens: tokensOf(config) };
}

function namedTemplates(given: JsonValue, folder: string): Map<string, string> {
  if (typeof given === 'string') return new Map([['default', given]]);
  if (!Array.isArray(given)) throw notATemplate(folder, typeof given);
  return new Map(
    given.map((entry) => {
      const { name, template } = isJsonObject(entry) ? entry : ({} as JsonObject);
      if (typeof name === 'string' && typeof template === 'string') return [name, template];
      throw notATemplate(folder, 'a list with something else');
    }),
  );
}

/** A token is written as its text, or as an object that holds it. */
function tokensOf(config: JsonObject): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of TOKENS) {
    const value = ownValue(config, name);
    const text = isJsonObject(value) ? ownValue(value, 'content') : value;
    if (typeof text === 'string') tokens[name] = text;
  }
  return tokens;
}

function notATemplate(folder: string, actual: string): DsError {
  return new DsError({
    code: 'FORMAT',
    op: OP,
    expected: `a chat template of at most ${LIMITS.chatTemplateBytes} bytes, or a list of {name, template}, in ${folder}`,
    actual,
    hint: 'fetch tokenizer_config.json or chat_template.jinja of the model again',
  });
}
