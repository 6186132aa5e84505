/** Decoders that take one id at a time and never show half a character. */
import { fromByteChars } from './byte-level';
import type { StreamDecoder } from './tokenizer';

/** What a byte-level stream needs to know of its vocabulary. */
export interface ByteLevelVocabulary {
  idToToken(id: number): string | undefined;
  /** Says whether the id is an added token, whose content is text and not byte characters. */
  isAdded(id: number): boolean;
}

/** Decodes byte-level tokens: bytes of an incomplete character wait for the next token. */
export class ByteLevelStreamDecoder implements StreamDecoder {
  readonly #vocabulary: ByteLevelVocabulary;
  readonly #skipped: ReadonlySet<number>;
  // ignoreBOM keeps U+FEFF, which is part of the text like any other character.
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** @param skipped ids that add nothing to the text */
  constructor(vocabulary: ByteLevelVocabulary, skipped: ReadonlySet<number>) {
    this.#vocabulary = vocabulary;
    this.#skipped = skipped;
  }

  push(id: number): string {
    const token = this.#skipped.has(id) ? undefined : this.#vocabulary.idToToken(id);
    if (token === undefined) return '';
    if (this.#vocabulary.isAdded(id)) return this.flush() + token;
    // A token with characters outside the alphabet stands for its own text, as in the Rust library.
    const bytes = fromByteChars(token) ?? new TextEncoder().encode(token);
    return this.#decoder.decode(bytes, { stream: true });
  }

  flush(): string {
    return this.#decoder.decode();
  }
}

/**
 * Streams any other decoder: decodes the last ids with and without the new ones and returns the difference, once that does
 * not end in U+FFFD, which may be half a character. The ids of the last step stay as context, because a decoder treats the
 * first id of a text in its own way.
 */
export class WindowStreamDecoder implements StreamDecoder {
  readonly #decode: (ids: number[]) => string;
  /** Context first, then the ids whose text is still to come. */
  #ids: number[] = [];
  #contextIds = 0;

  constructor(decode: (ids: number[]) => string) {
    this.#decode = decode;
  }

  push(id: number): string {
    this.#ids.push(id);
    const text = this.#newText();
    if (text === '' || text.endsWith('\ufffd')) return '';
    this.#ids = this.#ids.slice(this.#contextIds);
    this.#contextIds = this.#ids.length;
    return text;
  }

  flush(): string {
    const text = this.#newText();
    this.#ids = [];
    this.#contextIds = 0;
    return text;
  }

  #newText(): string {
    const context = this.#contextIds === 0 ? '' : this.#decode(this.#ids.slice(0, this.#contextIds));
    return this.#ids.length === 0 ? '' : this.#decode(this.#ids).slice(context.length);
  }
}
