/** From documents to token files: hold-out by hash, end-of-text after each document, Megatron's layout. */
import { DsError } from '@ds/core-native';
import { encodeCorpus } from '../tokenizer/encode-corpus';
import type { HuggingFaceTokenizer } from '../tokenizer/hugging-face-tokenizer';
import {
  type Document,
  type DocumentFilesOptions,
  type DocumentStats,
  newDocumentStats,
  readDocuments,
} from './document-files';
import { IndexedTokensWriter, tokenDtypeFor } from './indexed-tokens';

export interface CorpusOptions extends DocumentFilesOptions {
  /** Share of documents held out for validation; default 0.05, as BLOOM. */
  readonly validationShare?: number;
}

/** Texts in memory, divided. */
export interface Corpus {
  readonly train: readonly Document[];
  readonly validation: readonly Document[];
  readonly stats: DocumentStats;
}

/**
 * Says whether a document is held out. The hash of its text decides, so that a document never changes sides when others
 * come or go, and a copy of a training document is never validation.
 */
export function isHeldOut(document: Pick<Document, 'sha256'>, validationShare: number): boolean {
  return Number.parseInt(document.sha256.slice(0, 12), 16) / 2 ** 48 < validationShare;
}

/**
 * Reads documents into memory and divides them. Same files, same corpus, on every machine.
 *
 * @throws DsError IO, FORMAT; CONFIG for a share outside 0 … 1
 */
export function collectCorpus(options: CorpusOptions): Corpus {
  const share = options.validationShare ?? 0.05;
  if (!(share >= 0 && share <= 1)) {
    const expected = 'validationShare from 0 to 1';
    throw new DsError({ code: 'CONFIG', op: 'collectCorpus', expected, actual: `${share}`, hint: '0.05 is usual.' });
  }
  const stats = newDocumentStats();
  const train: Document[] = [];
  const validation: Document[] = [];
  for (const document of readDocuments(options, stats))
    (isHeldOut(document, share) ? validation : train).push(document);
  return { train, validation, stats };
}

export interface WriteTokenFilesOptions {
  /** Append the tokenizer's end-of-text token to each document, as BLOOM did. Default true. */
  readonly appendEndOfText?: boolean;
  /** Called after each document with the count so far. */
  readonly onProgress?: (documents: number) => void;
}

/** What was written. */
export interface TokenFilesStats {
  readonly documents: number;
  readonly tokens: number;
  /** UTF-8 bytes of the texts: the divisor of bits per byte. */
  readonly textBytes: number;
}

/**
 * Encodes texts into PREFIX.bin and PREFIX.idx. The texts alone are encoded: of special tokens only the end is added.
 *
 * @throws DsError IO; CONFIG if an end-of-text token is asked for and the tokenizer has none
 */
export function writeTokenFiles(
  prefix: string,
  texts: Iterable<string>,
  tokenizer: HuggingFaceTokenizer,
  options: WriteTokenFilesOptions = {},
): TokenFilesStats {
  const appendId = options.appendEndOfText === false ? undefined : tokenizer.eosTokenId;
  if (appendId === undefined && options.appendEndOfText !== false) {
    const hint = 'Name one in tokenizer_config.json (eos_token), or set appendEndOfText to false.';
    const expected = 'a tokenizer with an end-of-text token';
    throw new DsError({ code: 'CONFIG', op: 'writeTokenFiles', expected, actual: 'one without', hint });
  }
  using writer = IndexedTokensWriter.create(prefix, tokenDtypeFor(tokenizer.vocabSize));
  let textBytes = 0;
  const counted = function* (): Generator<string> {
    for (const text of texts) {
      textBytes += Buffer.byteLength(text);
      yield text;
    }
  };
  for (const ids of encodeCorpus(tokenizer, counted(), { appendId, addSpecialTokens: false })) {
    writer.addDocument(ids);
    options.onProgress?.(writer.documentCount);
  }
  const stats = { documents: writer.documentCount, tokens: writer.tokenCount, textBytes };
  writer.finish();
  return stats;
}
