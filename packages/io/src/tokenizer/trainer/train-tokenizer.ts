/** Trains a byte-level BPE tokenizer on text and writes it in the Hugging Face format. */
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import { writeFileAtomically } from '../../files/atomic-file';
import { parseJson } from '../../json/strict-json';
import { LIMITS } from '../../limits';
import { toWellFormed } from '../byte-level';
import type { HuggingFaceTokenizer, TokenRoles } from '../hugging-face-tokenizer';
import { createTokenizer } from '../load-tokenizer';
import { PRE_SPLIT_PATTERNS, type PreSplitName, preSplitter } from '../pre-split';
import { learnMerges } from './bpe-merges';
import { WordTable } from './word-table';

export interface TrainTokenizerOptions {
  /** Tokens in all, special ones and the 256 bytes included. Fewer result where the text gives no more pairs. */
  readonly vocabSize: number;
  /** How text is cut before merging. Default `bloom`. */
  readonly pattern?: PreSplitName;
  /** Tokens of ids 0, 1, 2, …. Default `<unk>`, `<s>`, `</s>`, `<pad>`, as BLOOM. */
  readonly specialTokens?: readonly string[];
  /** Roles of special tokens. Default BLOOM's, as far as `specialTokens` has them. */
  readonly roles?: TokenRoles;
  /** Least count of a pair that is merged. Default 0: any pair that occurs. */
  readonly minFrequency?: number;
  /** Called after each merge with the number of tokens so far. */
  readonly onProgress?: (tokens: number) => void;
}

/** A trained tokenizer, not yet on disk. */
export interface TrainedTokenizer {
  /** Tokens by id, in byte characters. */
  readonly tokens: readonly string[];
  /** Pairs of tokens by rank. */
  readonly merges: readonly (readonly [string, string])[];
  readonly tokenizer: HuggingFaceTokenizer;
  /** Content of `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, for a model folder. */
  readonly files: Readonly<Record<string, string>>;
}

const BLOOM_SPECIAL_TOKENS = ['<unk>', '<s>', '</s>', '<pad>'];
const BLOOM_ROLES: TokenRoles = { unk: '<unk>', bos: '<s>', eos: '</s>', pad: '<pad>' };

/**
 * Trains a tokenizer. The same documents in the same order give the same files, byte for byte.
 *
 * @param documents texts; unpaired surrogates count as U+FFFD
 * @throws DsError CONFIG for a vocabulary too small or too large, or special tokens that clash
 */
export function trainTokenizer(documents: Iterable<string>, options: TrainTokenizerOptions): TrainedTokenizer {
  const { vocabSize, pattern = 'bloom', specialTokens = BLOOM_SPECIAL_TOKENS, minFrequency = 0 } = options;
  checkOptions(vocabSize, specialTokens);
  const split = preSplitter(pattern);
  const table = new WordTable();
  for (const text of documents) for (const piece of split(toWellFormed(text))) table.add(piece);
  const { onProgress } = options;
  const { tokens, merges } = learnMerges(table, { vocabSize, minFrequency, specialTokens, onProgress });
  const roles = options.roles ?? rolesIn(specialTokens);
  const files = {
    'tokenizer.json': formatTokenizer(tokens, merges, specialTokens, pattern),
    'tokenizer_config.json': formatConfig(roles, pattern),
    'special_tokens_map.json': `${JSON.stringify(roleEntries(roles), null, 2)}\n`,
  };
  const json = parseJson('trainTokenizer', new TextEncoder().encode(files['tokenizer.json']), {
    source: 'its own output',
  });
  return { tokens, merges, files, tokenizer: createTokenizer(json, roles) };
}

/** Writes the files of a trained tokenizer into an existing folder, each atomically. @throws DsError IO */
export function saveTokenizer(folder: string, { files }: TrainedTokenizer): void {
  for (const [name, content] of Object.entries(files))
    writeFileAtomically('saveTokenizer', join(folder, name), content);
}

function checkOptions(vocabSize: number, specialTokens: readonly string[]): void {
  const least = specialTokens.length + 256;
  if (!Number.isInteger(vocabSize) || vocabSize < least || vocabSize > LIMITS.vocabularyTokens) {
    const expected = `vocabSize from ${least} (256 bytes and ${specialTokens.length} special tokens) to ${LIMITS.vocabularyTokens}`;
    const hint = '8192 suits a small model, 32,000 to 250,000 large ones.';
    throw new DsError({ code: 'CONFIG', op: 'trainTokenizer', expected, actual: `${vocabSize}`, hint });
  }
  for (const [i, token] of specialTokens.entries()) {
    if (token.length > 1 && !/\p{Cs}/u.test(token) && specialTokens.indexOf(token) === i) continue;
    const expected = 'specialTokens of at least two characters, each once';
    const hint = 'A single character is a byte of the alphabet already.';
    throw new DsError({ code: 'CONFIG', op: 'trainTokenizer', expected, actual: JSON.stringify(token), hint });
  }
}

function rolesIn(specialTokens: readonly string[]): TokenRoles {
  return Object.fromEntries(Object.entries(BLOOM_ROLES).filter(([, token]) => specialTokens.includes(token)));
}

function roleEntries(roles: TokenRoles): Record<string, string> {
  const entries = (['bos', 'eos', 'pad', 'unk'] as const).map((role) => [`${role}_token`, roles[role]] as const);
  return Object.fromEntries(
    entries.filter((entry): entry is [`${'bos' | 'eos' | 'pad' | 'unk'}_token`, string] => entry[1] !== undefined),
  );
}

function formatConfig(roles: TokenRoles, pattern: PreSplitName): string {
  const config = {
    ...roleEntries(roles),
    add_prefix_space: false,
    clean_up_tokenization_spaces: false,
    padding_side: 'left',
    // The generic class reads everything from tokenizer.json; BLOOM's checks that it looks like BLOOM's.
    tokenizer_class: pattern === 'bloom' ? 'BloomTokenizerFast' : 'PreTrainedTokenizerFast',
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

/** Writes `tokenizer.json` as released BLOOM has it: merges as "a b", vocabulary by id. */
function formatTokenizer(
  tokens: readonly string[],
  merges: readonly (readonly [string, string])[],
  specialTokens: readonly string[],
  pattern: PreSplitName,
): string {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const split = { type: 'Split', pattern: { Regex: PRE_SPLIT_PATTERNS[pattern] }, behavior: 'Isolated', invert: false };
  const head = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [split, byteLevel] },
    post_processor: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: false },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  };
  const model = {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
  };
  // The vocabulary is put together by hand: an object would move keys that look like numbers to the front.
  const vocab = tokens.map((token, id) => `      ${JSON.stringify(token)}: ${id}`).join(',\n');
  const ranks = merges.map(([left, right]) => `      ${JSON.stringify(`${left} ${right}`)}`).join(',\n');
  const headText = JSON.stringify(head, null, 2).slice(0, -2);
  const modelText = JSON.stringify(model, null, 2).slice(0, -2).replaceAll('\n', '\n  ');
  return `${headText},\n  "model": ${modelText},\n    "vocab": {\n${vocab}\n    },\n    "merges": [\n${ranks}\n    ]\n  }\n}\n`;
}
