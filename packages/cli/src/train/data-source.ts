/**
 * Where training data lies once it is ready to be read: what the command finds out, or prepares, and every rank opens.
 * Plain data, so that it can be handed to ranks as JSON.
 */
import fs = require('node:fs');

import { DsError } from '@ds/core-native';
import { ContiguousDataset, GptDataset, IndexedTokens, RowDataset, type TokenDataset } from '@ds/io';

/** Documents [begin, end) of token files. */
export interface TokenRange {
  readonly prefix: string;
  readonly documents: readonly [number, number];
}

export type DataSource =
  /** Ready rows, in order, wrapping around; a path, or null for those in the config. */
  | { readonly kind: 'rows'; readonly path: string | null }
  | {
      readonly kind: 'tokens';
      readonly train: TokenRange;
      readonly validation: TokenRange | null;
      /** Folder of the tokenizer that made the ids; null where nobody said. */
      readonly tokenizer: string | null;
    };

export interface OpenData extends Disposable {
  readonly train: TokenDataset;
  readonly validation: TokenDataset | null;
}

export interface OpenDataOptions {
  readonly vocabSize: number;
  /** Tokens a sample; null takes the rows' own. */
  readonly sequenceLength: number | null;
  /** Samples that training draws. */
  readonly numSamples: number;
  readonly seed: number;
  readonly validationSplit: number;
  /** Rows that stand in the config. */
  readonly inlineRows: readonly (readonly number[])[] | null;
}

/** Opens data for reading samples. @throws IO, FORMAT, CONFIG */
export function openData(source: DataSource, options: OpenDataOptions): OpenData {
  return source.kind === 'rows' ? openRows(source.path, options) : openTokens(source, options);
}

function openRows(path: string | null, options: OpenDataOptions): OpenData {
  const { vocabSize, sequenceLength, validationSplit, inlineRows } = options;
  const all = path === null ? new RowDataset(inlineRows!, { vocabSize }, 'data') : RowDataset.open(path, { vocabSize });
  if (sequenceLength !== null && all.sequenceLength !== sequenceLength)
    throw new DsError({
      code: 'CONFIG',
      op: 'data',
      expected: `rows of ${sequenceLength} + 1 ids, as sequence_length says`,
      actual: `rows of ${all.sequenceLength + 1}`,
      hint: 'Leave sequence_length out: rows have their own length.',
    });
  const held = Math.floor(all.length * validationSplit);
  const rows = (begin: number, end: number) =>
    new RowDataset(
      Array.from({ length: end - begin }, (_, i) => Array.from(all.sample(begin + i))),
      {},
      path ?? 'data',
    );
  if (validationSplit > 0 && (held === 0 || held === all.length))
    throw new DsError({
      code: 'CONFIG',
      op: 'validation_split',
      expected: 'a share that leaves rows on both sides',
      actual: `${validationSplit} of ${all.length} rows`,
      hint: 'Give more rows, or remove "validation_split".',
    });
  return {
    train: held === 0 ? all : rows(0, all.length - held),
    validation: held === 0 ? null : rows(all.length - held, all.length),
    [Symbol.dispose]: () => {},
  };
}

function openTokens(source: DataSource & { kind: 'tokens' }, options: OpenDataOptions): OpenData {
  const { vocabSize, sequenceLength, numSamples, seed } = options;
  if (sequenceLength === null)
    throw new DsError({
      code: 'CONFIG',
      op: 'sequence_length',
      expected: 'tokens per sample',
      actual: 'none, and the model names no length of its own',
      hint: 'Add "sequence_length": 256.',
    });
  const opened: IndexedTokens[] = [];
  const open = (prefix: string) => {
    const tokens = IndexedTokens.open(prefix, { vocabSize });
    opened.push(tokens);
    return tokens;
  };
  const { train, validation } = source;
  return {
    train: new GptDataset(open(train.prefix), { sequenceLength, numSamples, seed, documents: train.documents }),
    validation:
      validation && new ContiguousDataset(open(validation.prefix), { sequenceLength, documents: validation.documents }),
    [Symbol.dispose]: () => {
      for (const tokens of opened) tokens.close();
    },
  };
}

/** Finds PREFIX where PREFIX.bin and PREFIX.idx are, also when one of them was named. */
export function tokenPrefixOf(path: string): string | undefined {
  const prefix = path.replace(/\.(bin|idx)$/, '');
  return fs.existsSync(`${prefix}.bin`) && fs.existsSync(`${prefix}.idx`) ? prefix : undefined;
}
