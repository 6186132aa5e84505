/** Encoding of many documents. */
import type { HuggingFaceTokenizer } from './hugging-face-tokenizer';
import type { EncodeOptions } from './tokenizer';

export interface EncodeCorpusOptions extends EncodeOptions {
  /** Id put after each document, such as the end-of-text token. Default: none. */
  readonly appendId?: number | undefined;
  /** Distinct pieces remembered before the memory is cleared; default 500,000 (about 100 MB). */
  readonly maxCachedPieces?: number;
}

/**
 * Encodes documents one by one, to the ids that `tokenizer.encode` gives, an order of magnitude faster.
 *
 * @returns the ids of each document, in order
 */
export function* encodeCorpus(
  tokenizer: HuggingFaceTokenizer,
  documents: Iterable<string>,
  options: EncodeCorpusOptions = {},
): Generator<Int32Array> {
  const encode = tokenizer.documentEncoder(options, options.maxCachedPieces);
  for (const text of documents) {
    const ids = encode(text);
    if (options.appendId === undefined) {
      yield ids;
      continue;
    }
    const withEnd = new Int32Array(ids.length + 1);
    withEnd.set(ids);
    withEnd[ids.length] = options.appendId;
    yield withEnd;
  }
}
