/**
 * Text as token files: collected, divided, encoded with a tokenizer that is named or learnt from it. What was prepared from
 * the same text with the same settings is used again.
 */
import { createHash } from 'node:crypto';

import fs = require('node:fs');
import path = require('node:path');

import { DsError } from '@ds/core-native';
import {
  type Corpus,
  type CorpusOptions,
  collectCorpus,
  type HuggingFaceTokenizer,
  loadTokenizer,
  readTokenizerFiles,
  saveTokenizer,
  trainTokenizer,
  writeFileAtomically,
  writeTokenFiles,
} from '@ds/io';

export interface PrepareTextOptions {
  readonly corpus: CorpusOptions & { readonly validationShare: number };
  /** Where to put token files and tokenizer. */
  readonly folder: string;
  /** Folder or file of a tokenizer; null learns one from the training texts. */
  readonly tokenizer: string | null;
  /** Rows of the model's embedding. */
  readonly vocabSize: number;
  /** Hears what is being done, in a few words. */
  readonly onStage: (text: string) => void;
}

/** Token files whose last documents are those held out. */
export interface PreparedText {
  /** PREFIX of .bin and .idx. */
  readonly prefix: string;
  readonly trainDocuments: number;
  readonly documents: number;
  readonly tokenizerFolder: string;
}

/** Prepares text. @throws CONFIG where there is none, or nothing to hold out; IO; FORMAT */
export function prepareText(options: PrepareTextOptions): PreparedText {
  const { corpus: source, folder, tokenizer: named, onStage } = options;
  onStage('reading text');
  const corpus = collectCorpus(source);
  const { train, validation } = divide(corpus, source);
  const tokenizerFolder = path.join(folder, 'tokenizer');
  const prefix = path.join(folder, 'text');
  const key = keyOf(corpus, options);
  if (preparedKey(folder) !== key) {
    fs.mkdirSync(tokenizerFolder, { recursive: true });
    fs.rmSync(path.join(folder, keyFile), { force: true });
    const tokenizer = named === null ? learnTokenizer(train, options, tokenizerFolder) : loadTokenizer(named);
    if (named !== null) copyTokenizer(named, tokenizerFolder);
    checkVocabulary(tokenizer, options);
    onStage('encoding text');
    writeTokenFiles(prefix, [...train, ...validation], tokenizer);
    writeFileAtomically('prepareText', path.join(folder, keyFile), `${key}\n`);
  }
  const documents = train.length + validation.length;
  return { prefix, trainDocuments: train.length, documents, tokenizerFolder };
}

/** Where a side would have fewer documents than this, it might get none: then the end of each document is held out. */
const fewDocuments = 10;

interface DividedTexts {
  readonly train: readonly string[];
  readonly validation: readonly string[];
}

function divide(corpus: Corpus, { paths, validationShare: share }: PrepareTextOptions['corpus']): DividedTexts {
  const texts = (documents: Corpus['train']) => documents.map(({ text }) => text);
  const all = [...texts(corpus.train), ...texts(corpus.validation)];
  if (all.length === 0)
    throw new DsError({
      code: 'CONFIG',
      op: 'data',
      expected: `text in ${paths.join(', ')}`,
      actual: `none in ${corpus.stats.files} files`,
      hint: 'Folders are searched for .txt, .md and .jsonl files; name other files one by one.',
    });
  const cuts = all.map((text) => ({ text, at: cutPoint(text, share) }));
  const divided =
    share === 0 || Math.min(share, 1 - share) * all.length >= fewDocuments
      ? { train: texts(corpus.train), validation: texts(corpus.validation) }
      : {
          train: cuts.map(({ text, at }) => text.slice(0, at)).filter((text) => text !== ''),
          validation: cuts.map(({ text, at }) => text.slice(at)).filter((text) => text !== ''),
        };
  if (share === 0 || (divided.train.length > 0 && divided.validation.length > 0)) return divided;
  throw nothingHeldOut(share, all.length);
}

/** @internal For token files, too. */
export function nothingHeldOut(share: number, documents: number): DsError {
  return new DsError({
    code: 'CONFIG',
    op: 'validation_split',
    expected: 'a share that leaves documents on both sides',
    actual: `${share} of ${documents}`,
    hint: 'Give more documents, another share, or remove "validation_split".',
  });
}

/** Where the last `share` of a text begins: behind the line end before it, if there is one. */
function cutPoint(text: string, share: number): number {
  const wanted = Math.floor(text.length * (1 - share));
  const behindLine = text.lastIndexOf('\n', wanted - 1) + 1;
  return behindLine > 0 ? behindLine : wanted;
}

/** Says by its content what was prepared in a folder. */
const keyFile = 'prepared-from';

function preparedKey(folder: string): string | undefined {
  const file = path.join(folder, keyFile);
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim() : undefined;
}

function keyOf(corpus: Corpus, { tokenizer, vocabSize, corpus: { validationShare } }: PrepareTextOptions): string {
  const hash = createHash('sha256').update(JSON.stringify({ version: 1, tokenizer, vocabSize, validationShare }));
  if (tokenizer !== null)
    for (const content of Object.values(readTokenizerFiles(folderOf(tokenizer)))) hash.update(content);
  for (const side of [corpus.train, corpus.validation]) {
    for (const { sha256 } of side) hash.update(sha256);
    hash.update('|');
  }
  return hash.digest('hex');
}

function learnTokenizer(
  texts: readonly string[],
  { vocabSize, onStage }: PrepareTextOptions,
  folder: string,
): HuggingFaceTokenizer {
  onStage(`learning a tokenizer of ${vocabSize} tokens`);
  const trained = trainTokenizer(texts, { vocabSize });
  saveTokenizer(folder, trained);
  return trained.tokenizer;
}

/** A tokenizer may be named by its folder or its file. */
function folderOf(named: string): string {
  return fs.statSync(named, { throwIfNoEntry: false })?.isDirectory() ? named : path.dirname(named);
}

/** Keeps the tokenizer with the data: the exported model gets it from there. */
function copyTokenizer(named: string, folder: string): void {
  for (const [name, content] of Object.entries(readTokenizerFiles(folderOf(named))))
    writeFileAtomically('prepareText', path.join(folder, name), content);
}

function checkVocabulary(tokenizer: HuggingFaceTokenizer, { vocabSize, tokenizer: named }: PrepareTextOptions): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new DsError({
    code: 'CONFIG',
    op: 'tokenizer',
    expected: `at most the model's ${vocabSize} tokens`,
    actual: `${tokenizer.vocabSize} in ${named ?? 'the trained one'}`,
    hint: 'Give a model with a larger vocab_size, or another tokenizer.',
  });
}
