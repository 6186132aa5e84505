/** Finds out, before any rank starts, where the data of a config is; text is prepared in the run's folder. */
import fs = require('node:fs');

import { DsError } from '@ds/core-native';
import { IndexedTokens, splitByRange } from '@ds/io';
import type { TrainConfig } from '@ds/zero';
import { type DataSource, tokenPrefixOf } from './data-source';
import type { ModelSource } from './model';
import { dataFolder } from './places';
import { nothingHeldOut, prepareText } from './prepare-text';

/**
 * Finds the data.
 * @param onStage hears what is being done, in a few words
 * @throws CONFIG, IO, FORMAT
 */
export function prepareData(config: TrainConfig, model: ModelSource, onStage: (text: string) => void): DataSource {
  const { data, validationSplit } = config;
  const tokenizer = config.tokenizer ?? model.tokenizerFolder ?? null;
  if (typeof data === 'object' && 'ids' in data) return { kind: 'rows', path: null };
  if (typeof data === 'string') {
    if (data.endsWith('.json')) return { kind: 'rows', path: data };
    const prefix = tokenPrefixOf(data);
    if (prefix !== undefined) return tokenFiles(prefix, validationSplit, tokenizer);
    if (!fs.existsSync(data)) throw noData(data);
  }
  const text = prepareText({
    corpus: { paths: typeof data === 'string' ? [data] : data, validationShare: validationSplit },
    folder: dataFolder(config.output),
    tokenizer,
    vocabSize: model.config.vocabSize,
    onStage,
  });
  return tokenSource(text.prefix, text.trainDocuments, text.documents, text.tokenizerFolder);
}

function noData(data: string): DsError {
  return new DsError({
    code: 'CONFIG',
    op: 'data',
    expected: 'a folder of text, text files, a .bin/.idx prefix or a JSON file of ids',
    actual: `nothing at ${JSON.stringify(data)}`,
    hint: 'Check the path; it is taken from the working directory.',
  });
}

function tokenFiles(prefix: string, validationSplit: number, tokenizer: string | null): DataSource {
  using tokens = IndexedTokens.open(prefix);
  const documents = tokens.sequenceCount;
  const [, end] = splitByRange(`0:${1 - validationSplit}`, documents);
  if (validationSplit > 0 && (end === 0 || end === documents)) throw nothingHeldOut(validationSplit, documents);
  return tokenSource(prefix, end, documents, tokenizer);
}

/** Token files whose documents from `end` on are held out. */
function tokenSource(prefix: string, end: number, documents: number, tokenizer: string | null): DataSource {
  return {
    kind: 'tokens',
    train: { prefix, documents: [0, end] },
    validation: end < documents ? { prefix, documents: [end, documents] } : null,
    tokenizer,
  };
}
