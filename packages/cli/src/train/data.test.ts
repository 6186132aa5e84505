/** Data of a run: text prepared once, held-out parts, rows and token files, samples dealt to ranks. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { IndexedTokens, IndexedTokensWriter, loadTokenizer, RowDataset } from '@ds/io';
import { parseTrainConfig } from '@ds/zero';
import { goldenPath } from '../../../../test/support/golden';
import { dealSamples, evaluationRows, nextRows } from './batches';
import { bitsPerByte, labelBytes } from './bits-per-byte';
import { openData } from './data-source';
import { findModel } from './model';
import { prepareData } from './prepare-data';
import { prepareText } from './prepare-text';

const folder = mkdtempSync(path.join(tmpdir(), 'ds-data-'));
afterAll(() => rmSync(folder, { recursive: true }));

const tokenizer = goldenPath('bloom-tiny');

function textFolder(name: string, documents: readonly string[]): string {
  const at = path.join(folder, name);
  mkdirSync(at);
  documents.forEach((text, i) => {
    writeFileSync(path.join(at, `${i}.txt`), text);
  });
  return at;
}

function prepare(paths: string[], name: string, validationShare: number, stages: string[] = []) {
  return prepareText({
    corpus: { paths, validationShare },
    folder: path.join(folder, name),
    tokenizer,
    vocabSize: 512,
    onStage: (stage) => stages.push(stage),
  });
}

function textsOf(prefix: string): string[] {
  using tokens = IndexedTokens.open(prefix);
  const { decode } = ((t) => ({ decode: (ids: Int32Array) => t.decode(ids) }))(loadTokenizer(tokenizer));
  return Array.from({ length: tokens.sequenceCount }, (_, i) => decode(tokens.sequence(i)));
}

describe('text', () => {
  it('of few documents is held out from the end of each, at a line end', () => {
    const lines = Array.from({ length: 20 }, (_, i) => `line ${i}\n`).join('');
    const { prefix, trainDocuments, documents } = prepare([textFolder('few', [lines])], 'few-data', 0.25);
    expect([trainDocuments, documents]).toEqual([1, 2]);
    const [train, held] = textsOf(prefix);
    expect(`${train}${held}`.replaceAll('</s>', '')).toBe(lines);
    expect(train).toMatch(/line 14\n<\/s>$/);
    expect(held).toMatch(/^line 15\n/);
  });

  it('of many documents is held out by whole ones, which lie at the end', () => {
    const texts = Array.from({ length: 300 }, (_, i) => `the document of number ${i}`);
    const { prefix, trainDocuments, documents } = prepare([textFolder('many', texts)], 'many-data', 0.1);
    expect(documents).toBe(300);
    expect(trainDocuments).toBeGreaterThan(240);
    expect(trainDocuments).toBeLessThan(290);
    expect(new Set(textsOf(prefix))).toEqual(new Set(texts.map((text) => `${text}</s>`)));
  });

  it('is prepared once, and again when it or the settings change', () => {
    const source = textFolder('once', ['some text', 'more text']);
    const stages: string[] = [];
    const first = prepare([source], 'once-data', 0, stages);
    const written = statSync(`${first.prefix}.bin`).mtimeMs;
    expect(prepare([source], 'once-data', 0, stages)).toEqual(first);
    expect(statSync(`${first.prefix}.bin`).mtimeMs).toBe(written);
    expect(stages).toEqual(['reading text', 'encoding text', 'reading text']);
    writeFileSync(path.join(source, '2.txt'), 'new text');
    expect(prepare([source], 'once-data', 0, stages).documents).toBe(3);
    expect(prepare([source], 'once-data', 0.5, stages).documents).toBe(6);
    expect(stages.filter((stage) => stage === 'encoding text')).toHaveLength(3);
  });

  it('brings a tokenizer learnt from the training side where none is named', () => {
    const source = textFolder('learn', ['aaaa bbbb aaaa bbbb', 'cccc']);
    const { tokenizerFolder } = prepareText({
      corpus: { paths: [source], validationShare: 0 },
      folder: path.join(folder, 'learn-data'),
      tokenizer: null,
      vocabSize: 266,
      onStage: () => {},
    });
    expect(loadTokenizer(tokenizerFolder).decode(loadTokenizer(tokenizerFolder).encode('aaaa bbbb'))).toBe('aaaa bbbb');
  });

  it('needs a tokenizer that fits the model, and some text', () => {
    const source = textFolder('misfit', ['text']);
    const options = { corpus: { paths: [source], validationShare: 0 }, tokenizer, onStage: () => {} };
    const at = path.join(folder, 'misfit-data');
    expect(() => prepareText({ ...options, folder: at, vocabSize: 300 })).toThrow("at most the model's 300 tokens");
    expect(() => prepare([textFolder('empty', [])], 'empty-data', 0)).toThrow(/expected text in .*, got none/);
    expect(() => prepare([textFolder('one', ['x'])], 'one-data', 0.5)).toThrow('a share that leaves documents on both');
  });
});

const deepspeed = { train_batch_size: 1, optimizer: { type: 'AdamW' } };

describe('the data of a config', () => {
  const model = findModel('bloom-tiny');
  const find = (data: unknown, more: object = {}) =>
    prepareData(parseTrainConfig({ model: 'bloom-tiny', steps: 1, deepspeed, data, ...more }), model, () => {});

  it('is found in place, in a JSON file, and in token files whose last documents are held out', () => {
    expect(find({ ids: [[1, 2]] })).toEqual({ kind: 'rows', path: null });
    expect(find('rows.json')).toEqual({ kind: 'rows', path: 'rows.json' });
    const prefix = path.join(folder, 'tokens');
    using writer = IndexedTokensWriter.create(prefix, 'u16');
    for (let i = 0; i < 20; i++) writer.addDocument([i, i, i]);
    writer.finish();
    for (const name of [prefix, `${prefix}.bin`, `${prefix}.idx`])
      expect(find(name, { validation_split: 0.1, tokenizer: 'tok' })).toEqual({
        kind: 'tokens',
        train: { prefix, documents: [0, 18] },
        validation: { prefix, documents: [18, 20] },
        tokenizer: 'tok',
      });
    expect(() => find(prefix, { validation_split: 0.01 })).toThrow('a share that leaves documents on both sides');
    expect(() => find('/nowhere')).toThrow('nothing at "/nowhere"');
  });
});

const rowsOptions = {
  vocabSize: 100,
  sequenceLength: null,
  numSamples: 10,
  seed: 1,
  validationSplit: 0,
  inlineRows: null,
};

describe('rows', () => {
  const inlineRows = Array.from({ length: 5 }, (_, i) => [i, i + 1, i + 2]);
  const rows = { kind: 'rows', path: null } as const;

  it('are taken in order, wrapping around; the last ones are held out', () => {
    using all = openData(rows, { ...rowsOptions, inlineRows });
    expect([all.train.length, all.train.sequenceLength, all.validation]).toEqual([5, 2, null]);
    using split = openData(rows, { ...rowsOptions, inlineRows, validationSplit: 0.4 });
    expect(Array.from(split.train.sample(3))).toEqual([0, 1, 2]);
    expect(Array.from(split.validation!.sample(0))).toEqual([3, 4, 5]);
    expect(() => openData(rows, { ...rowsOptions, inlineRows, validationSplit: 0.1 })).toThrow('rows on both sides');
  });

  it('come from a file too, and must fit the vocabulary', () => {
    const file = path.join(folder, 'rows.json');
    writeFileSync(file, JSON.stringify({ ids: [[1, 2, 99]] }));
    expect(Array.from(openData({ kind: 'rows', path: file }, rowsOptions).train.sample(4))).toEqual([1, 2, 99]);
    expect(() => openData({ kind: 'rows', path: file }, { ...rowsOptions, vocabSize: 99 })).toThrow('ids from 0 to 98');
  });
});

describe('samples', () => {
  const dataset = new RowDataset(Array.from({ length: 7 }, (_, i) => [i, 10 + i, 20 + i]));
  const firstTokens = (batch: { rows: readonly ArrayLike<number>[] }) => batch.rows.map((row) => row[0]);

  it('are dealt so that a global batch is a stretch of consecutive ones, whatever the ranks', () => {
    const one = dealSamples(dataset, { microBatch: 2, rank: 0, world: 1 });
    const two = [0, 1].map((rank) => dealSamples(dataset, { microBatch: 2, rank, world: 2 }));
    const alone = [nextRows(one), nextRows(one), nextRows(one), nextRows(one)].map(firstTokens);
    const together = [0, 1].flatMap(() => two.map((loader) => firstTokens(nextRows(loader))));
    expect(alone).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 0],
    ]);
    expect(together).toEqual(alone);
    expect([one.consumedSamples, two[1]!.consumedSamples]).toEqual([8, 8]);
  });

  it('keep their T + 1 tokens, and go on where a run stopped', () => {
    const loader = dealSamples(dataset, { microBatch: 1, rank: 0, world: 1, consumedSamples: 9 });
    expect(nextRows(loader).rows.map((row) => Array.from(row))).toEqual([[2, 12, 22]]);
  });

  it('of an evaluation are the same on one rank and on two', () => {
    const alone = evaluationRows(dataset, { microBatch: 1, rank: 0, world: 1 }, 4).map(firstTokens);
    const shared = [0, 1].map((rank) => evaluationRows(dataset, { microBatch: 1, rank, world: 2 }, 4).map(firstTokens));
    expect(alone.flat()).toEqual([0, 1, 2, 3]);
    expect([0, 1].flatMap((i) => shared.flatMap((rows) => rows[i]!))).toEqual(alone.flat());
  });
});

describe('bits per byte', () => {
  it('count the bytes of the labels, not those of special tokens', () => {
    const trained = loadTokenizer(tokenizer);
    const text = 'Grüße 世界';
    const ids = [...trained.encode(`x${text}`), 2];
    const first = trained.decode([ids[0]!]);
    const bytes = labelBytes([{ rows: [ids] }], trained);
    expect(bytes).toBe(Buffer.byteLength(`x${text}`) - Buffer.byteLength(first));
    expect(bitsPerByte(Math.LN2, 30, 10)).toBeCloseTo(3, 12);
  });
});

describe('a model', () => {
  it('is found by folder, file, preset and sizes in place', () => {
    const golden = findModel(goldenPath('bloom-tiny'));
    expect(golden).toMatchObject({
      weightsFolder: goldenPath('bloom-tiny'),
      tokenizerFolder: goldenPath('bloom-tiny'),
    });
    const json = JSON.parse(readFileSync(goldenPath('bloom-tiny', 'config.json'), 'utf8'));
    for (const same of [findModel(goldenPath('bloom-tiny', 'config.json')), findModel(json)]) {
      expect(same.config).toEqual(golden.config);
      expect(same.weightsFolder).toBeUndefined();
    }
    expect(findModel('bloom').config).toMatchObject({ layers: 70, hiddenSize: 14336 });
  });

  it('from a broken file is refused by its name', () => {
    const file = path.join(folder, 'broken.json');
    writeFileSync(file, '{');
    expect(() => findModel(file)).toThrow(/broken\.json: expected the config of a model/);
    expect(() => findModel({ model_type: 'llama' })).toThrow('model_type "bloom"');
  });
});
