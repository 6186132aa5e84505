/** Loads a tokenizer from a model folder: `tokenizer.json`, and the roles of tokens from the files beside it. */
import { statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DsError } from '@ds/core-native';
import { readBoundedFile } from '../files/bounded-file';
import { findInside } from '../hugging-face/inside-folder';
import { readJsonOf, TOKENIZER_FILES } from '../hugging-face/model-folder';
import { isJsonObject, type JsonObject, ownValue, parseJson } from '../json/strict-json';
import { LIMITS } from '../limits';
import { HuggingFaceTokenizer, type TokenRoles } from './hugging-face-tokenizer';
import { checkTokenizerJson } from './tokenizer-json';

const OP = 'loadTokenizer';

/**
 * Loads a tokenizer.
 *
 * @param path a model folder, or a tokenizer file; `tokenizer_config.json` and `special_tokens_map.json` are looked for beside
 * @throws DsError IO if there is none; FORMAT if it is broken or above the limits; UNSUPPORTED for unknown steps
 */
export function loadTokenizer(path: string): HuggingFaceTokenizer {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const folder = isFolder ? path : dirname(path);
  const name = isFolder ? TOKENIZER_FILES[0]! : basename(path);
  const file = findInside(OP, folder, name);
  if (file === undefined) {
    const hint = 'Name a model folder that has a tokenizer.json.';
    throw new DsError({ code: 'IO', op: OP, expected: join(folder, name), actual: 'no such file', hint });
  }
  const json = parseJson(OP, readBoundedFile(OP, file, LIMITS.tokenizerJsonBytes), { source: file });
  const config = readJsonOf(OP, folder, TOKENIZER_FILES[1]!) ?? {};
  const map = readJsonOf(OP, folder, TOKENIZER_FILES[2]!) ?? {};
  checkChatTemplate(config, folder);
  const role = (key: string): string | undefined => roleOf(config, key) ?? roleOf(map, key);
  const roles = { bos: role('bos_token'), eos: role('eos_token'), pad: role('pad_token'), unk: role('unk_token') };
  return createTokenizer(json, roles, file);
}

/**
 * Makes a tokenizer of a parsed `tokenizer.json`.
 *
 * @param roles contents of the tokens that begin, end and pad text
 * @param path for messages
 * @throws DsError FORMAT, UNSUPPORTED
 */
export function createTokenizer(json: unknown, roles: TokenRoles = {}, path = 'tokenizer.json'): HuggingFaceTokenizer {
  return new HuggingFaceTokenizer(checkTokenizerJson(json as JsonObject, path), roles, path);
}

/** Reads a role: a string, or an object with the string as `content`. */
function roleOf(config: JsonObject, key: string): string | undefined {
  const value = ownValue(config, key);
  const content = isJsonObject(value) ? ownValue(value, 'content') : value;
  return typeof content === 'string' && content !== '' ? content : undefined;
}

function checkChatTemplate(config: JsonObject, folder: string): void {
  const template = ownValue(config, 'chat_template');
  const bytes = Buffer.byteLength(JSON.stringify(template ?? null));
  if (bytes <= LIMITS.chatTemplateBytes) return;
  const expected = `a chat_template of at most ${LIMITS.chatTemplateBytes} bytes in ${join(folder, TOKENIZER_FILES[1]!)}`;
  const hint = 'No model needs one that long; check the file.';
  throw new DsError({ code: 'FORMAT', op: OP, expected, actual: `${bytes}`, hint });
}
