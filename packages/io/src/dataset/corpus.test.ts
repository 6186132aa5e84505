import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTokenizer, loadTokenizer } from '../tokenizer/load-tokenizer';
import { collectCorpus, isHeldOut, writeTokenFiles } from './corpus';
import { newDocumentStats, readDocuments } from './document-files';
import { IndexedTokens } from './indexed-tokens';

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

function put(name: string, content: string | Uint8Array, root = folder): void {
  fs.mkdirSync(join(root, name, '..'), { recursive: true });
  fs.writeFileSync(join(root, name), content);
}

const textsOf = (options: Parameters<typeof readDocuments>[0], stats = newDocumentStats()): string[] =>
  [...readDocuments(options, stats)].map(({ text }) => text);

describe('readDocuments', () => {
  test('reads matching files below folders, each text once, without links and hidden entries', () => {
    put('a.md', 'one');
    put('deep/er/b.d.ts', 'two');
    put('deep/copy.md', 'one');
    put('deep/c.js', 'not asked for');
    put('.hidden/d.md', 'hidden');
    put('.e.md', 'hidden');
    put('f.md', ' \n\t');
    put('g.md', Buffer.from([0xff, 0xfe, 0x41]));
    put('h.md', 'x'.repeat(101));
    put('i.md', '\ufeffwith a mark');
    fs.symlinkSync(join(folder, 'a.md'), join(folder, 'link.md'));
    fs.symlinkSync(folder, join(folder, 'deep/loop'));
    const stats = newDocumentStats();
    const texts = textsOf({ paths: [folder], extensions: ['.md', '.d.ts'], maxFileBytes: 100 }, stats);
    expect(texts.sort()).toEqual(['one', 'two', 'with a mark']);
    expect(stats).toEqual({
      files: 5,
      documents: 3,
      bytes: 17,
      duplicates: 1,
      empty: 1,
      tooLarge: 1,
      notUtf8: 1,
      cutOff: false,
    });
  });

  test('orders by name alone, whatever order and time files were made in', () => {
    const names = Array.from({ length: 60 }, (_, i) => `${String.fromCharCode(97 + (i % 5))}/${i}.txt`);
    const other = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
    for (const name of names) put(name, `text ${name}`);
    for (const name of names.toReversed()) put(name, `text ${name}`, other);
    const order = textsOf({ paths: [folder] });
    expect(textsOf({ paths: [other] })).toEqual(order);
    expect(order).toHaveLength(60);
    expect(order).not.toEqual([...order].sort());
    // Recorded once: the order is part of what makes a run repeatable.
    expect(order.slice(0, 3)).toEqual(['text d/33.txt', 'text d/28.txt', 'text d/48.txt']);
    fs.rmSync(other, { recursive: true });
  });

  test('stops before the document that would exceed the total', () => {
    for (let i = 0; i < 9; i++) put(`${i}.txt`, `${i}`.repeat(10));
    const stats = newDocumentStats();
    expect(textsOf({ paths: [folder], maxTotalBytes: 45 }, stats)).toEqual(textsOf({ paths: [folder] }).slice(0, 4));
    expect(stats).toMatchObject({ documents: 4, bytes: 40, cutOff: true });
  });

  test('reads files named directly whatever their size and extension, and JSON lines line by line', () => {
    put('notes.log', 'x'.repeat(2_000_000));
    const long = 'é'.repeat(900_000);
    put(
      'rows.jsonl',
      `${JSON.stringify({ text: 'first', id: 1 })}\n\n  \r\n${JSON.stringify({ text: long })}\n${JSON.stringify({ text: 'last' })}`,
    );
    const documents = [...readDocuments({ paths: [join(folder, 'notes.log'), join(folder, 'rows.jsonl')] })];
    expect(documents.map(({ text }) => text.length)).toEqual([2_000_000, 5, 900_000, 4]);
    expect(documents.map(({ name }) => name.slice(folder.length))).toEqual([
      '/notes.log',
      '/rows.jsonl:1',
      '/rows.jsonl:4',
      '/rows.jsonl:5',
    ]);
    expect(documents[2]!.text).toBe(long);
  });

  test('names the line of a bad row, the missing path and the file that is no text', () => {
    put('rows.jsonl', '{"text":"fine"}\n{"text":3}\n');
    expect(() => textsOf({ paths: [join(folder, 'rows.jsonl')] })).toThrow(/\{"text": "…"\} in .*rows.jsonl:2/);
    put('rows.jsonl', '{"text":"fine"}\n{"text":"a","text":"b"}\n');
    expect(() => textsOf({ paths: [join(folder, 'rows.jsonl')] })).toThrow(
      /rows.jsonl:2 at character 12, got "text" twice/,
    );
    expect(() => textsOf({ paths: [join(folder, 'absent')] })).toThrow(expect.objectContaining({ code: 'IO' }));
    put('binary', Buffer.from([0xff]));
    expect(() => textsOf({ paths: [join(folder, 'binary')] })).toThrow(/UTF-8 text in .*binary/);
  });
});

describe('collectCorpus', () => {
  test('holds out about the share asked for, by text and not by company', () => {
    for (let i = 0; i < 400; i++) put(`${i}.txt`, `document number ${i}`);
    const { train, validation, stats } = collectCorpus({ paths: [folder], validationShare: 0.2 });
    expect(train.length + validation.length).toBe(400);
    expect(stats.documents).toBe(400);
    expect(validation.length).toBeGreaterThan(50);
    expect(validation.length).toBeLessThan(110);
    const held = new Set(validation.map(({ text }) => text));
    for (let i = 0; i < 400; i += 2) fs.rmSync(join(folder, `${i}.txt`));
    for (const { text } of collectCorpus({ paths: [folder], validationShare: 0.2 }).validation)
      expect(held.has(text)).toBe(true);
  });

  test('takes the shares 0 and 1 and refuses others', () => {
    put('a.txt', 'text');
    expect(collectCorpus({ paths: [folder], validationShare: 0 }).validation).toEqual([]);
    expect(collectCorpus({ paths: [folder], validationShare: 1 }).train).toEqual([]);
    expect(() => collectCorpus({ paths: [folder], validationShare: 1.5 })).toThrow(/validationShare from 0 to 1/);
    expect(isHeldOut({ sha256: `${'0'.repeat(64)}` }, 1e-9)).toBe(true);
    expect(isHeldOut({ sha256: `${'f'.repeat(64)}` }, 0.999)).toBe(false);
  });
});

describe('writeTokenFiles', () => {
  const golden = join(__dirname, '../../../../test/golden/bloom-tiny');

  test('writes what encode gives, with or without the end of text', () => {
    const tokenizer = loadTokenizer(golden);
    const texts = ['The river.', '', 'père</s>🦊'];
    for (const appendEndOfText of [true, false]) {
      const prefix = join(folder, String(appendEndOfText));
      const progress: number[] = [];
      writeTokenFiles(prefix, texts, tokenizer, {
        appendEndOfText,
        onProgress: (documents) => progress.push(documents),
      });
      using tokens = IndexedTokens.open(prefix);
      expect(texts.map((_, i) => [...tokens.sequence(i)])).toEqual(
        texts.map((text) => [...tokenizer.encode(text), ...(appendEndOfText ? [2] : [])]),
      );
      expect(progress).toEqual([1, 2, 3]);
    }
  });

  test('refuses a tokenizer without an end of text, unless none is wanted', () => {
    const json = JSON.parse(fs.readFileSync(join(golden, 'tokenizer.json'), 'utf8'));
    const tokenizer = createTokenizer(json);
    expect(() => writeTokenFiles(join(folder, 'x'), ['a'], tokenizer)).toThrow(/end-of-text token/);
    expect(fs.readdirSync(folder)).toEqual([]);
    expect(writeTokenFiles(join(folder, 'x'), ['a'], tokenizer, { appendEndOfText: false })).toEqual({
      documents: 1,
      tokens: 1,
      textBytes: 1,
    });
  });
});
