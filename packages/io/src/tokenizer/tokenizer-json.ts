/**
 * Checks a `tokenizer.json` before the tokenizer library sees it: sizes, ids, merges, and features that the library would
 * pass over without a word. A tokenizer comes with a model, so it is as untrusted as the weights.
 */
import { DsError } from '@ds/core-native';
import { isJsonObject, type JsonObject, type JsonValue, ownValue, shorten } from '../json/strict-json';
import { LIMITS } from '../limits';
import { PRE_SPLIT_PATTERNS } from './pre-split';

const OP = 'loadTokenizer';

/** A token outside the model's merges, matched literally in text. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

/** What our own code needs of the file, checked. */
export interface CheckedTokenizer {
  /** The file with the library's needs added; give this to the library. */
  readonly json: JsonObject;
  /** Model type: BPE, Unigram, WordPiece. */
  readonly modelType: string;
  /** Id of each token of the model; added tokens are not in it unless the model has them too. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** BPE merges by rank; empty for other models. */
  readonly merges: readonly (readonly [string, string])[];
  readonly addedTokens: readonly AddedToken[];
}

type Fail = (expected: string, actual: string, code?: 'FORMAT' | 'UNSUPPORTED') => DsError;

/**
 * Checks a parsed `tokenizer.json`.
 *
 * @param path for messages
 * @throws DsError FORMAT for a broken file, UNSUPPORTED for a feature whose neglect would give other ids
 */
export function checkTokenizerJson(root: JsonValue, path: string): CheckedTokenizer {
  const fail: Fail = (expected, actual, code = 'FORMAT') => {
    const hint =
      code === 'UNSUPPORTED'
        ? 'Save the tokenizer without this feature.'
        : 'The file is damaged or was edited; fetch or write it again.';
    return new DsError({ code, op: OP, expected: `${expected} in ${path}`, actual, hint });
  };
  if (!isJsonObject(root)) throw fail('a JSON object', 'another JSON value');
  const model = ownValue(root, 'model');
  if (!isJsonObject(model)) throw fail('an object model', shorten(JSON.stringify(model) ?? 'none'));
  // Old files of BPE models leave the type out.
  const modelType = ownValue(model, 'type') ?? ('merges' in model ? 'BPE' : '');
  if (typeof modelType !== 'string' || !['BPE', 'Unigram', 'WordPiece'].includes(modelType)) {
    throw fail('a model of type BPE, Unigram or WordPiece', shorten(JSON.stringify(modelType)), 'UNSUPPORTED');
  }
  const vocabulary = checkVocabulary(ownValue(model, 'vocab'), modelType, fail);
  const merges = modelType === 'BPE' ? checkMerges(ownValue(model, 'merges'), vocabulary, fail) : [];
  const dropout = ownValue(model, 'dropout') ?? 0;
  if (dropout !== 0) throw fail('no dropout', shorten(JSON.stringify(dropout)), 'UNSUPPORTED');
  const addedTokens = checkAddedTokens(ownValue(root, 'added_tokens') ?? [], vocabulary, fail);
  const steps: Record<string, JsonValue> = {};
  for (const key of ['normalizer', 'pre_tokenizer', 'post_processor', 'decoder']) {
    steps[key] = checkStep(ownValue(root, key) ?? null, key, fail);
  }
  const added = ownValue(root, 'added_tokens') ?? [];
  return { json: { ...root, ...steps, added_tokens: added }, modelType, vocabulary, merges, addedTokens };
}

function checkVocabulary(value: JsonValue | undefined, type: string, fail: Fail): ReadonlyMap<string, number> {
  const vocabulary = new Map<string, number>();
  if (type === 'Unigram') {
    if (!Array.isArray(value) || value.length === 0) throw fail('a list model.vocab', typeof value);
    for (const [id, entry] of value.entries()) {
      const [token, score] = Array.isArray(entry) ? entry : [];
      if (typeof token !== 'string' || typeof score !== 'number') {
        throw fail(`[token, score] as model.vocab[${id}]`, shorten(JSON.stringify(entry)));
      }
      vocabulary.set(token, id);
    }
  } else {
    if (!isJsonObject(value)) throw fail('an object model.vocab', typeof value);
    const seen = new Map<number, string>();
    for (const [token, id] of Object.entries(value)) {
      if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= LIMITS.vocabularyTokens) {
        const expected = `ids from 0 to ${LIMITS.vocabularyTokens - 1} in model.vocab`;
        throw fail(expected, `${shorten(JSON.stringify(id))} for ${shorten(token)}`);
      }
      const twin = seen.get(id);
      if (twin !== undefined) throw fail('each id once', `${id} for ${shorten(twin)} and ${shorten(token)}`);
      seen.set(id, token);
      vocabulary.set(token, id);
    }
  }
  if (vocabulary.size > LIMITS.vocabularyTokens) {
    throw fail(`at most ${LIMITS.vocabularyTokens} tokens`, `${vocabulary.size}`);
  }
  return vocabulary;
}

function checkMerges(
  value: JsonValue | undefined,
  vocabulary: ReadonlyMap<string, number>,
  fail: Fail,
): (readonly [string, string])[] {
  if (!Array.isArray(value)) throw fail('a list model.merges', typeof value);
  if (value.length > LIMITS.merges) throw fail(`at most ${LIMITS.merges} merges`, `${value.length}`);
  const asStrings = typeof value[0] === 'string';
  return value.map((merge, rank) => {
    // Released files write "a b", newer writers ["a", "b"]; a file that mixes both is refused by the Rust library too.
    const parts = asStrings && typeof merge === 'string' ? merge.split(' ') : merge;
    const [left, right] = Array.isArray(parts) && parts.length === 2 ? parts : [];
    if ((typeof merge === 'string') !== asStrings || typeof left !== 'string' || typeof right !== 'string') {
      const form = asStrings ? '"left right"' : '["left", "right"]';
      throw fail(`${form} as model.merges[${rank}]`, shorten(JSON.stringify(merge)));
    }
    for (const token of [left, right, left + right]) {
      if (!vocabulary.has(token)) throw fail(`the tokens of model.merges[${rank}] in model.vocab`, shorten(token));
    }
    return [left, right];
  });
}

function checkAddedTokens(value: JsonValue, vocabulary: ReadonlyMap<string, number>, fail: Fail): AddedToken[] {
  if (!Array.isArray(value)) throw fail('a list added_tokens', typeof value);
  if (value.length > LIMITS.addedTokens) throw fail(`at most ${LIMITS.addedTokens} added tokens`, `${value.length}`);
  const tokenOfId = new Map([...vocabulary].map(([token, id]) => [id, token]));
  return value.map((item, i) => {
    const at = `added_tokens[${i}]`;
    if (!isJsonObject(item)) throw fail(`an object as ${at}`, shorten(JSON.stringify(item)));
    const { id, content } = item;
    if (typeof content !== 'string' || content === '' || /\p{Cs}/u.test(content)) {
      throw fail(`text as ${at}.content`, shorten(JSON.stringify(content) ?? 'none'));
    }
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= LIMITS.vocabularyTokens) {
      const expected = `an id from 0 to ${LIMITS.vocabularyTokens - 1} as ${at}.id`;
      throw fail(expected, shorten(JSON.stringify(id) ?? 'none'));
    }
    const twin = tokenOfId.get(id);
    if ((twin !== undefined && twin !== content) || (vocabulary.get(content) ?? id) !== id) {
      throw fail(
        `one token per id and one id per token`,
        `${id} for ${shorten(content)} in ${at} against the vocabulary`,
      );
    }
    tokenOfId.set(id, content);
    // The library matches such a token inside words too, where Python would not.
    if (item.single_word === true) throw fail(`single_word false in ${at}`, 'true', 'UNSUPPORTED');
    const { special, lstrip, rstrip } = item;
    return { id, content, special: special === true, lstrip: lstrip === true, rstrip: rstrip === true };
  });
}

/**
 * Checks the patterns of a normalizer, pre-tokenizer, post-processor or decoder, and spells out GPT-2's.
 *
 * The library's byte-level step cuts with JavaScript's `\s`, which takes U+FEFF for white space and U+0085 not; as a Split
 * with the pattern written out, the library cuts as Python does.
 */
function checkStep(value: JsonValue, at: string, fail: Fail): JsonValue {
  if (Array.isArray(value)) return value.map((item, i) => checkStep(item, `${at}[${i}]`, fail));
  if (!isJsonObject(value)) return value;
  const pattern = ownValue(value, 'Regex') ?? ownValue(value, 'String');
  if (typeof pattern === 'string' && pattern.length > LIMITS.patternChars) {
    throw fail(`at most ${LIMITS.patternChars} characters in the pattern of ${at}`, `${pattern.length}`);
  }
  // A length of 0 would make the library cut for ever.
  if (value.type === 'FixedLength' && !(Number.isInteger(value.length) && Number(value.length) > 0)) {
    throw fail(`a length of 1 or more in ${at}`, shorten(JSON.stringify(value.length) ?? 'none'));
  }
  const checked: JsonObject = {};
  for (const [key, item] of Object.entries(value)) {
    // A hostile `__proto__` key must stay an own key.
    Object.defineProperty(checked, key, {
      value: checkStep(item, `${at}.${key}`, fail),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  const byteLevelSplits =
    at.startsWith('pre_tokenizer') &&
    checked.type === 'ByteLevel' &&
    (checked.use_regex ?? true) === true &&
    checked.add_prefix_space === false;
  if (!byteLevelSplits) return checked;
  const split = { type: 'Split', pattern: { Regex: PRE_SPLIT_PATTERNS.gpt2 }, behavior: 'Isolated', invert: false };
  return { type: 'Sequence', pretokenizers: [split, { ...checked, use_regex: false }] };
}
