/**
 * The fast road for corpora: cut once, merge each distinct piece once, remember its ids.
 *
 * Only for byte-level BPE in the two forms that are cut context-free (BLOOM, GPT-2); any other tokenizer takes the
 * library's road. Tests hold both roads to the same ids.
 */
import type { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { isJsonObject, type JsonValue, ownValue } from '../json/strict-json';
import { BYTE_CHARS, toByteChars, toWellFormed } from './byte-level';
import { BytePairEncoder } from './byte-pair-encoder';
import { preSplitNameOf, preSplitter } from './pre-split';
import type { AddedToken, CheckedTokenizer } from './tokenizer-json';

/** Encodes one document; the array is the caller's. */
export type DocumentEncoder = (text: string) => Int32Array;

/** Returns the fast encoder if the tokenizer is one it is exact for, else undefined. */
export function pieceEncoderOf(
  checked: CheckedTokenizer,
  library: LibraryTokenizer,
  maxCachedPieces: number,
): DocumentEncoder | undefined {
  const split = splitterOf(ownValue(checked.json, 'pre_tokenizer') ?? null);
  if (!split || !isPlainByteLevelBpe(checked)) return undefined;
  const merger = new BytePairEncoder(checked.vocabulary, checked.merges);
  const model = library.model!;
  const encodeLong = (piece: string): Int32Array => {
    const tokens: string[] = model.encode([toByteChars(piece)]);
    return Int32Array.from(tokens, (token) => checked.vocabulary.get(token)!);
  };
  const cache = new PieceCache((piece) => merger.encode(piece)?.slice() ?? encodeLong(piece), maxCachedPieces);
  const added = new AddedTokenFinder(checked.addedTokens);
  const out = new IdBuffer();
  return (text) => {
    out.clear();
    added.forEachSection(toWellFormed(text), (section, id) => {
      if (id !== undefined) out.push(id);
      else for (const piece of split(section)) out.append(cache.idsOf(piece));
    });
    return out.toArray();
  };
}

function splitterOf(preTokenizer: JsonValue): ((text: string) => string[]) | undefined {
  if (!isJsonObject(preTokenizer) || preTokenizer.type !== 'Sequence') return undefined;
  const steps = ownValue(preTokenizer, 'pretokenizers');
  const [split, bytes, ...more] = Array.isArray(steps) ? steps : [];
  if (!isJsonObject(split) || !isJsonObject(bytes) || more.length > 0) return undefined;
  const pattern = ownValue(split, 'pattern');
  const regex = isJsonObject(pattern) ? ownValue(pattern, 'Regex') : undefined;
  const cutsInPlace = split.type === 'Split' && split.behavior === 'Isolated' && split.invert !== true;
  const mapsBytes = bytes.type === 'ByteLevel' && bytes.use_regex === false && bytes.add_prefix_space === false;
  const name = typeof regex === 'string' && cutsInPlace && mapsBytes ? preSplitNameOf(regex) : undefined;
  return name && preSplitter(name);
}

function isPlainByteLevelBpe({ json, modelType, vocabulary, addedTokens }: CheckedTokenizer): boolean {
  const model = ownValue(json, 'model');
  if (modelType !== 'BPE' || !isJsonObject(model)) return false;
  const off = [
    'continuing_subword_prefix',
    'continuing_subword_suffix',
    'end_of_word_suffix',
    'byte_fallback',
    'ignore_merges',
  ];
  if (off.some((key) => Boolean(ownValue(model, key))) || ownValue(json, 'normalizer') !== null) return false;
  if (addedTokens.some((token) => token.lstrip || token.rstrip)) return false;
  return BYTE_CHARS.every((char) => vocabulary.has(char));
}

/** Ids of pieces seen before. A piece of one id, the most common case, is kept as the bare number. */
class PieceCache {
  readonly #encode: (piece: string) => Int32Array;
  readonly #maxPieces: number;
  readonly #ids = new Map<string, number | Int32Array>();

  constructor(encode: (piece: string) => Int32Array, maxPieces: number) {
    this.#encode = encode;
    this.#maxPieces = maxPieces;
  }

  idsOf(piece: string): number | Int32Array {
    const known = this.#ids.get(piece);
    if (known !== undefined) return known;
    const ids = this.#encode(piece);
    const kept = ids.length === 1 ? ids[0]! : ids;
    if (this.#ids.size >= this.#maxPieces) this.#ids.clear();
    // A slice of a string keeps the whole document alive; a copy does not.
    this.#ids.set(Buffer.from(piece).toString(), kept);
    return kept;
  }
}

/** Finds added tokens in text: leftmost first, longest of those that begin at the same place. */
class AddedTokenFinder {
  readonly #pattern: RegExp | undefined;
  readonly #idOf: ReadonlyMap<string, number>;

  constructor(tokens: readonly AddedToken[]) {
    this.#idOf = new Map(tokens.map(({ content, id }) => [content, id]));
    const contents = [...this.#idOf.keys()].sort((a, b) => b.length - a.length);
    const escaped = contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'));
    if (escaped.length > 0) this.#pattern = new RegExp(escaped.join('|'), 'g');
  }

  /** Calls `visit` with each stretch of plain text (id undefined) and each added token, in order. */
  forEachSection(text: string, visit: (section: string, id: number | undefined) => void): void {
    let begin = 0;
    if (this.#pattern) {
      for (const match of text.matchAll(this.#pattern)) {
        if (match.index > begin) visit(text.slice(begin, match.index), undefined);
        visit(match[0], this.#idOf.get(match[0])!);
        begin = match.index + match[0].length;
      }
    }
    if (begin < text.length) visit(begin === 0 ? text : text.slice(begin), undefined);
  }
}

/** Growing list of ids. */
class IdBuffer {
  #ids = new Int32Array(4096);
  #length = 0;

  clear(): void {
    this.#length = 0;
  }

  push(id: number): void {
    this.#reserve(1);
    this.#ids[this.#length++] = id;
  }

  append(ids: number | Int32Array): void {
    if (typeof ids === 'number') {
      this.push(ids);
      return;
    }
    this.#reserve(ids.length);
    // For the few ids of a piece a loop is faster than TypedArray.set.
    for (let i = 0; i < ids.length; i++) this.#ids[this.#length + i] = ids[i]!;
    this.#length += ids.length;
  }

  toArray(): Int32Array {
    return this.#ids.slice(0, this.#length);
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#ids.length) return;
    const grown = new Int32Array(Math.max(this.#ids.length * 2, this.#length + count));
    grown.set(this.#ids.subarray(0, this.#length));
    this.#ids = grown;
  }
}
