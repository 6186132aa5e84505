/**
 * A tokenizer made from `tokenizer.json`. Encoding is the library's (@huggingface/tokenizers, checked equal to the Rust
 * one); byte-level decoding is ours, because streams need it token by token; `documentEncoder` is a faster road to the same ids.
 */
import { DsError } from '@ds/core-native';
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { isJsonObject, ownValue } from '../json/strict-json';
import { toWellFormed } from './byte-level';
import { type DocumentEncoder, pieceEncoderOf } from './document-encoder';
import { ByteLevelStreamDecoder, WindowStreamDecoder } from './stream-decoder';
import type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from './tokenizer';
import type { CheckedTokenizer } from './tokenizer-json';

/** Tokens that a folder gives a role. */
export interface TokenRoles {
  readonly bos?: string | undefined;
  readonly eos?: string | undefined;
  readonly pad?: string | undefined;
  readonly unk?: string | undefined;
}

const NOTHING: ReadonlySet<number> = new Set();

/** `Tokenizer` over a checked `tokenizer.json`. Made by `loadTokenizer` or `createTokenizer`. */
export class HuggingFaceTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly padTokenId: number | undefined;
  readonly unkTokenId: number | undefined;
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly #path: string;
  readonly #checked: CheckedTokenizer;
  readonly #library: LibraryTokenizer;
  readonly #idOf: ReadonlyMap<string, number>;
  readonly #tokenOf: ReadonlyMap<number, string>;
  readonly #addedIds: ReadonlySet<number>;
  readonly #specialIds: ReadonlySet<number>;
  readonly #isByteLevel: boolean;

  /** @throws DsError UNSUPPORTED for a step the library does not know; FORMAT for a role no token has */
  constructor(checked: CheckedTokenizer, roles: TokenRoles, path: string) {
    this.#path = path;
    this.#checked = checked;
    const added = checked.addedTokens.map(({ content, id }) => [content, id] as const);
    this.#idOf = new Map([...checked.vocabulary, ...added]);
    this.#tokenOf = new Map([...this.#idOf].map(([token, id]) => [id, token]));
    this.#addedIds = new Set(added.map(([, id]) => id));
    const special = checked.addedTokens.filter((token) => token.special);
    this.#specialIds = new Set(special.map(({ id }) => id));
    this.specialTokens = new Map(special.map(({ content, id }) => [content, id]));
    this.vocabSize = [...this.#tokenOf.keys()].reduce((highest, id) => Math.max(highest, id), -1) + 1;
    this.#library = createLibraryTokenizer(checked, roles, path);
    this.bosTokenId = this.#roleId('bos', roles.bos, path);
    this.eosTokenId = this.#roleId('eos', roles.eos, path);
    this.padTokenId = this.#roleId('pad', roles.pad, path);
    this.unkTokenId = this.#roleId('unk', roles.unk, path);
    const decoder = ownValue(checked.json, 'decoder');
    this.#isByteLevel = isJsonObject(decoder) && decoder.type === 'ByteLevel';
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    const wellFormed = toWellFormed(text);
    const settings = { add_special_tokens: options.addSpecialTokens ?? true };
    const { ids } = this.#guard('encode', () => this.#library.encode(wellFormed, settings));
    if (!ids.includes(undefined as never)) return ids;
    throw new DsError({
      code: 'FORMAT',
      op: 'encode',
      expected: 'an unknown token for text that the vocabulary does not cover',
      actual: 'a tokenizer without one',
      hint: 'Use a tokenizer whose vocabulary covers all bytes, or one that names its unknown token.',
    });
  }

  decode(ids: readonly number[] | Int32Array, options: DecodeOptions = {}): string {
    const list = Array.from(ids);
    const wrong = list.find((id) => !Number.isInteger(id) || id < 0);
    if (wrong !== undefined) {
      const hint = 'Ids are non-negative integers.';
      throw new DsError({ code: 'DTYPE', op: 'decode', expected: 'token ids', actual: String(wrong), hint });
    }
    if (!this.#isByteLevel) return this.#decodeByLibrary(list, options);
    const stream = this.streamDecoder(options);
    return list.map((id) => stream.push(id)).join('') + stream.flush();
  }

  streamDecoder(options: DecodeOptions = {}): StreamDecoder {
    if (!this.#isByteLevel) return new WindowStreamDecoder((ids) => this.#decodeByLibrary(ids, options));
    const vocabulary = {
      idToToken: (id: number) => this.#tokenOf.get(id),
      isAdded: (id: number) => this.#addedIds.has(id),
    };
    return new ByteLevelStreamDecoder(vocabulary, options.skipSpecialTokens ? this.#specialIds : NOTHING);
  }

  /**
   * Returns a function that encodes as `encode` does and remembers pieces it has seen: an order of magnitude faster on many
   * documents.
   *
   * @param maxCachedPieces pieces remembered before it starts over, default 500,000 (about 100 MB)
   */
  documentEncoder(options: EncodeOptions = {}, maxCachedPieces = 500_000): DocumentEncoder {
    const addsNothing = options.addSpecialTokens === false || this.encode('').length === 0;
    const encoder = addsNothing ? pieceEncoderOf(this.#checked, this.#library, maxCachedPieces) : undefined;
    return encoder ?? ((text) => Int32Array.from(this.encode(text, options)));
  }

  tokenToId(token: string): number | undefined {
    return this.#idOf.get(token);
  }

  idToToken(id: number): string | undefined {
    return this.#tokenOf.get(id);
  }

  #decodeByLibrary(ids: number[], options: DecodeOptions): string {
    const known = ids.filter((id) => this.#tokenOf.has(id));
    if (known.length === 0) return '';
    const settings = { skip_special_tokens: options.skipSpecialTokens ?? false };
    return this.#guard('decode', () => this.#library.decode(known, settings));
  }

  /** Runs the library, whose steps check their settings only in use, and names the file if one fails. */
  #guard<T>(op: string, run: () => T): T {
    try {
      return run();
    } catch (error) {
      throw new DsError({
        code: 'FORMAT',
        op,
        expected: `usable steps in ${this.#path}`,
        actual: error instanceof Error ? error.message : String(error),
        hint: 'A normalizer, pre-tokenizer, post-processor or decoder lacks a setting; fetch or write the file again.',
        cause: error,
      });
    }
  }

  #roleId(role: string, token: string | undefined, path: string): number | undefined {
    if (token === undefined) return undefined;
    const id = this.#idOf.get(token);
    if (id !== undefined) return id;
    throw new DsError({
      code: 'FORMAT',
      op: 'loadTokenizer',
      expected: `the ${role} token ${JSON.stringify(token)} in the vocabulary of ${path}`,
      actual: 'no such token',
      hint: 'tokenizer_config.json and tokenizer.json belong to different tokenizers; fetch both again.',
    });
  }
}

function createLibraryTokenizer(checked: CheckedTokenizer, roles: TokenRoles, path: string): LibraryTokenizer {
  try {
    // Clean-up would drop spaces before punctuation, so that decoded text is not the text that was encoded.
    return new LibraryTokenizer(checked.json, { clean_up_tokenization_spaces: false, eos_token: roles.eos });
  } catch (error) {
    throw new DsError({
      code: 'UNSUPPORTED',
      op: 'loadTokenizer',
      expected: `steps that the tokenizer library knows in ${path}`,
      actual: error instanceof Error ? error.message : String(error),
      hint: 'Save the tokenizer with steps of the tokenizers library that are in its JavaScript version too.',
      cause: error,
    });
  }
}
