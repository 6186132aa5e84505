import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { loadTokenizer } from '../load-tokenizer';
import { PairTable } from '../pair-table';
import { MergeQueue } from './merge-queue';
import { saveTokenizer, trainTokenizer } from './train-tokenizer';

const golden = join(__dirname, '../../../../../test/golden/bpe-trainer');
const corpus: string[] = fs
  .readFileSync(join(golden, 'corpus.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line).text);

interface Run {
  pattern: 'bloom' | 'gpt2';
  vocab_size: number;
  min_frequency: number;
  special: string[];
  tokens: number;
  merges: string[];
}
const {
  runs,
  small,
}: { runs: Run[]; small: { texts: string[]; vocab_size: number; tokens: number; merges: string[] }[] } = JSON.parse(
  fs.readFileSync(join(golden, 'golden.json'), 'utf8'),
);

describe('trainTokenizer learns the merges of the Rust trainer', () => {
  test.each(runs)('$pattern, $vocab_size tokens, pairs of $min_frequency or more', (run) => {
    const { tokens, merges } = trainTokenizer(corpus, {
      vocabSize: run.vocab_size,
      pattern: run.pattern,
      minFrequency: run.min_frequency,
      specialTokens: run.special,
      roles: {},
    });
    expect(merges.map((pair) => pair.join(' '))).toEqual(run.merges);
    expect(tokens).toHaveLength(run.tokens);
  });

  test('on 300 tiny corpora of ties, overlaps and tokens formed twice', () => {
    expect(small).toHaveLength(300);
    for (const { texts, vocab_size, tokens, merges } of small) {
      const trained = trainTokenizer(texts, { vocabSize: vocab_size });
      const got = { texts, merges: trained.merges.map((pair) => pair.join(' ')), tokens: trained.tokens.length };
      expect(got).toEqual({ texts, merges, tokens });
    }
  });
});

describe('a trained tokenizer', () => {
  const folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
  afterAll(() => fs.rmSync(folder, { recursive: true }));

  test.each(['bloom', 'gpt2'] as const)('is the same from memory and from its files (%s)', (pattern) => {
    const trained = trainTokenizer(corpus, { vocabSize: 800, pattern });
    saveTokenizer(folder, trained);
    expect(fs.readdirSync(folder).sort()).toEqual([
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const loaded = loadTokenizer(folder);
    const { vocabSize, unkTokenId, bosTokenId, eosTokenId, padTokenId } = loaded;
    expect([vocabSize, unkTokenId, bosTokenId, eosTokenId, padTokenId]).toEqual([800, 0, 1, 2, 3]);
    const encodeDocument = trained.tokenizer.documentEncoder();
    for (const text of corpus.slice(0, 100)) {
      const ids = loaded.encode(text);
      expect(trained.tokenizer.encode(text)).toEqual(ids);
      expect([...encodeDocument(text)]).toEqual(ids);
      expect(loaded.decode(ids)).toBe(text);
    }
    expect(loaded.encode('x</s>')).toEqual([loaded.tokenToId('x'), 2]);
    for (const [id, token] of trained.tokens.entries()) expect(loaded.idToToken(id)).toBe(token);
  });

  test('is written with its vocabulary by id, digits included, in the form of released BLOOM', () => {
    const { files } = trainTokenizer(['12 12 12'], { vocabSize: 270 });
    const text = files['tokenizer.json']!;
    expect(text).toMatch(
      /"vocab": \{\n {6}"<unk>": 0,\n {6}"<s>": 1,\n {6}"<\/s>": 2,\n {6}"<pad>": 3,\n {6}"!": 4,\n/,
    );
    expect(text.indexOf('"0": 19')).toBeGreaterThan(text.indexOf('"!": 4'));
    expect(text).toMatch(/"merges": \[\n {6}"1 2",\n {6}"Ġ 12"\n {4}\]\n {2}\}\n\}\n$/);
    const reference = JSON.parse(fs.readFileSync(join(golden, '../bloom-tiny/tokenizer.json'), 'utf8'));
    const { model, ...rest } = JSON.parse(text);
    const { model: referenceModel, ...referenceRest } = reference;
    expect(rest).toEqual(referenceRest);
    const { vocab: _v, merges: _m, ...settings } = model;
    const { vocab: _rv, merges: _rm, ...referenceSettings } = referenceModel;
    expect(settings).toEqual({ ...referenceSettings, ignore_merges: false });
  });

  test('is the same, byte for byte, when trained again', () => {
    const options = { vocabSize: 600 };
    expect(trainTokenizer(corpus, options).files).toEqual(trainTokenizer(corpus, options).files);
  });

  test('covers every byte even when trained on nothing', () => {
    const { tokenizer, tokens } = trainTokenizer([], { vocabSize: 1000 });
    expect(tokens).toHaveLength(260);
    expect(tokenizer.decode(tokenizer.encode('né🦊\0'))).toBe('né🦊\0');
  });

  test('reports each new token', () => {
    const seen: number[] = [];
    trainTokenizer(['ab ab ab'], { vocabSize: 263, onProgress: (tokens) => seen.push(tokens) });
    expect(seen).toEqual([261, 262]);
  });

  test('counts unpaired surrogates as U+FFFD', () => {
    const { merges } = trainTokenizer(['\ud800a'], { vocabSize: 300 });
    expect(merges).toEqual(trainTokenizer(['\ufffda'], { vocabSize: 300 }).merges);
  });

  test('is refused for impossible sizes and special tokens', () => {
    const config = expect.objectContaining({ code: 'CONFIG' });
    expect(() => trainTokenizer([], { vocabSize: 259 })).toThrow(/vocabSize from 260 .* to 1000000, got 259/);
    expect(() => trainTokenizer([], { vocabSize: 1e7 })).toThrow(config);
    expect(() => trainTokenizer([], { vocabSize: 300.5 })).toThrow(config);
    expect(() => trainTokenizer([], { vocabSize: 300, specialTokens: ['a'] })).toThrow(/at least two characters/);
    expect(() => trainTokenizer([], { vocabSize: 300, specialTokens: ['<a>', '<a>'] })).toThrow(config);
  });
});

test('PairTable numbers pairs in order of appearance, whatever their size', () => {
  const table = new PairTable(1);
  const numbers = new Map<string, number>();
  const id = fc.oneof(fc.nat(50), fc.nat(1_000_000));
  fc.assert(
    fc.property(id, id, (a, b) => {
      const key = `${a} ${b}`;
      expect(table.find(a, b)).toBe(numbers.get(key) ?? -1);
      if (!numbers.has(key)) numbers.set(key, numbers.size);
      const pair = table.number(a, b);
      expect([pair, table.firstOf(pair), table.secondOf(pair), table.size]).toEqual([
        numbers.get(key),
        a,
        b,
        numbers.size,
      ]);
    }),
    { numRuns: 5000, seed: 1 },
  );
});

test('MergeQueue returns candidates by count, then ids, then age', () => {
  const queue = new MergeQueue();
  const small4 = fc.record({ count: fc.nat(4), first: fc.nat(2), second: fc.nat(2) });
  fc.assert(
    fc.property(fc.array(small4), (list) => {
      const candidates = list.map((item, order) => ({ ...item, order, pair: 0, words: [] }));
      for (const candidate of candidates) queue.push(candidate);
      const sorted = candidates.sort(
        (a, b) => b.count - a.count || a.first - b.first || a.second - b.second || a.order - b.order,
      );
      for (const candidate of sorted) expect(queue.pop()).toBe(candidate);
      expect(queue.pop()).toBeUndefined();
    }),
    { numRuns: 500, seed: 2 },
  );
});
