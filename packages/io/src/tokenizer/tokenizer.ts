/** What the rest of the project knows of a tokenizer: text to ids and back. */

export interface EncodeOptions {
  /**
   * Let the tokenizer's own post-processor add its begin or end tokens, as Python's `encode` does. BLOOM's adds none.
   * Default true.
   */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens such as `</s>` out of the text. Default false. */
  readonly skipSpecialTokens?: boolean;
}

/** Turns ids into text one by one. What it returned, joined, is what `decode` returns for all ids. */
export interface StreamDecoder {
  /** Takes the next id; returns the text that is now certain, '' while a character is incomplete. */
  push(id: number): string;
  /** Ends the stream: returns what was held back, incomplete bytes as U+FFFD, and starts anew. */
  flush(): string;
}

export interface Tokenizer {
  /** Highest token id + 1. A model may have more rows, never fewer. */
  readonly vocabSize: number;
  /** Ids of the tokens that the folder names as begin, end, padding and unknown; undefined where it names none. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly padTokenId: number | undefined;
  readonly unkTokenId: number | undefined;
  /** Special tokens by content. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /**
   * Encodes a text. Unpaired surrogates count as U+FFFD. A special token spelled out in the text becomes that token.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Decodes ids. Bytes that are not UTF-8 become U+FFFD; ids without a token (spare rows of a model) are left out.
   * @throws DsError DTYPE for an id that is not a non-negative integer
   */
  decode(ids: readonly number[] | Int32Array, options?: DecodeOptions): string;
  streamDecoder(options?: DecodeOptions): StreamDecoder;
  /** Id of a token as the vocabulary spells it (`Ġthe`), or undefined. */
  tokenToId(token: string): number | undefined;
  /** Token as the vocabulary spells it, or undefined. */
  idToToken(id: number): string | undefined;
}
