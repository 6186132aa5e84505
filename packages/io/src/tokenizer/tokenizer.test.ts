import fs from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { HuggingFaceTokenizer } from './hugging-face-tokenizer';
import { createTokenizer, loadTokenizer } from './load-tokenizer';
import { PRE_SPLIT_PATTERNS } from './pre-split';

const golden = join(__dirname, '../../../../test/golden/bloom-tiny');
const rowsOf = (name: string) =>
  fs
    .readFileSync(join(golden, name), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
const strings: { n: number; text: string; ids: number[]; decoded: string; decoded_skip_special: string }[] =
  rowsOf('tokenizer-golden.jsonl');
const decodes: { ids: number[]; text: string; text_skip_special: string }[] = rowsOf('decode-golden.jsonl');

const streamed = (tokenizer: HuggingFaceTokenizer, ids: readonly number[], skipSpecialTokens = false): string => {
  const stream = tokenizer.streamDecoder({ skipSpecialTokens });
  return ids.map((id) => stream.push(id)).join('') + stream.flush();
};

describe.each(['tokenizer.json', 'tokenizer.pair-merges.json'])('BLOOM from %s', (file) => {
  const tokenizer = loadTokenizer(join(golden, file));

  test('encodes and decodes the 300 golden strings as the Rust library does', () => {
    expect(strings).toHaveLength(300);
    const encodeDocument = tokenizer.documentEncoder();
    for (const { n, text, ids, decoded, decoded_skip_special } of strings) {
      const got = {
        n,
        ids: tokenizer.encode(text),
        fast: [...encodeDocument(text)],
        decoded: tokenizer.decode(ids),
        skipped: tokenizer.decode(Int32Array.from(ids), { skipSpecialTokens: true }),
        streamed: streamed(tokenizer, ids),
      };
      expect(got).toEqual({ n, ids, fast: ids, decoded, skipped: decoded_skip_special, streamed: decoded });
    }
  });

  test('decodes the 64 golden lists of random ids, whole and streamed', () => {
    expect(decodes).toHaveLength(64);
    for (const { ids, text, text_skip_special } of decodes) {
      expect(tokenizer.decode(ids)).toBe(text);
      expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(text_skip_special);
      expect(streamed(tokenizer, ids)).toBe(text);
      expect(streamed(tokenizer, ids, true)).toBe(text_skip_special);
    }
  });

  test('knows its vocabulary and the roles of its special tokens', () => {
    const { vocabSize, unkTokenId, bosTokenId, eosTokenId, padTokenId } = tokenizer;
    expect([vocabSize, unkTokenId, bosTokenId, eosTokenId, padTokenId]).toEqual([512, 0, 1, 2, 3]);
    expect([...tokenizer.specialTokens]).toEqual([
      ['<unk>', 0],
      ['<s>', 1],
      ['</s>', 2],
      ['<pad>', 3],
    ]);
    expect(tokenizer.tokenToId('Ġ')).toBe(224);
    expect(tokenizer.idToToken(224)).toBe('Ġ');
    expect(tokenizer.idToToken(512)).toBeUndefined();
    expect(tokenizer.tokenToId('constructor')).toBeUndefined();
  });
});

describe('decoding', () => {
  const tokenizer = loadTokenizer(golden);

  test('leaves out ids without a token and refuses what is no id', () => {
    expect(tokenizer.decode([5, 511, 512, 600, 6])).toBe('"\ufffd#');
    expect(tokenizer.decode([])).toBe('');
    for (const id of [-1, 0.5, Number.NaN]) {
      expect(() => tokenizer.decode([5, id])).toThrow(expect.objectContaining({ code: 'DTYPE' }));
    }
  });

  test('streams whole characters only', () => {
    const ids = tokenizer.encode('é🦊');
    const stream = tokenizer.streamDecoder();
    const parts = ids.map((id) => stream.push(id));
    expect(parts.join('')).toBe('é🦊');
    expect(parts.filter((part) => part !== '')).toEqual(['é', '🦊']);
    expect(stream.flush()).toBe('');
    stream.push(tokenizer.encode('🦊')[0]!);
    expect(stream.flush()).toBe('\ufffd');
    expect(stream.push(5)).toBe('"');
  });

  test('streams across skipped special tokens, and cuts characters at shown ones', () => {
    const [first, ...rest] = tokenizer.encode('é').length > 1 ? tokenizer.encode('é') : tokenizer.encode('🦊');
    const ids = [first!, 2, ...rest];
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(tokenizer.decode([first!, ...rest]));
    expect(tokenizer.decode(ids)).toMatch(/^\ufffd<\/s>\ufffd/);
  });

  test('keeps U+FEFF at the start', () => {
    expect(tokenizer.decode(tokenizer.encode('\ufeffa'))).toBe('\ufeffa');
  });
});

describe('the document encoder', () => {
  /** A GPT-2 style tokenizer over the same vocabulary. */
  const json = JSON.parse(fs.readFileSync(join(golden, 'tokenizer.json'), 'utf8'));
  const gpt2 = createTokenizer({
    ...json,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
  });
  const bloom = loadTokenizer(golden);
  const alphabet = fc.constantFrom(
    ..." \t\n\u0085\u00a0\ufeff\u3000\u2028(),.!?…。，、।۔،|[]aeinorst'dABC019éßжд中文日🦊👍🏽\ud83e\u0301",
    ' the',
    "'s",
    "'ll",
    '</s>',
    '<s>',
    '<pad',
    '<unk>',
    '  ',
    '\r\n',
    '),\n',
    '\u180e',
    '\u200b',
  );
  const text = fc.array(alphabet, { maxLength: 60 }).map((parts) => parts.join(''));

  test.each([
    ['BLOOM', bloom],
    ['GPT-2', gpt2],
  ] as const)('gives the ids of encode for any text (%s)', (_name, tokenizer) => {
    const tiny = tokenizer.documentEncoder({}, 3);
    const usual = tokenizer.documentEncoder();
    fc.assert(
      fc.property(fc.oneof(text, fc.string({ unit: 'binary', maxLength: 80 })), (value) => {
        const ids = tokenizer.encode(value);
        expect([...usual(value)]).toEqual(ids);
        expect([...tiny(value)]).toEqual(ids);
        expect(tokenizer.decode(ids)).toBe(value.replace(/\p{Cs}/gu, '\ufffd'));
      }),
      { numRuns: 2000, seed: 5 },
    );
  });

  test('gives the ids of encode for pieces on both sides of its length limit', () => {
    const usual = bloom.documentEncoder();
    for (const length of [511, 512, 513, 5000]) {
      for (const unit of ['ab', 'é', ' ', '中', 'aaaaaaab', '\ud800']) {
        const value = unit.repeat(length).slice(0, length);
        expect([...usual(value)]).toEqual(bloom.encode(value));
      }
    }
  });

  test('takes the slow road for tokenizers it is not exact for', () => {
    const lower = createTokenizer({ ...json, normalizer: { type: 'Lowercase' } });
    expect([...lower.documentEncoder()('THE END')]).toEqual(bloom.encode('the end'));
    const template = {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: {},
    };
    const begins = createTokenizer({ ...json, post_processor: template });
    expect([...begins.documentEncoder()('the')]).toEqual([1, ...bloom.encode('the')]);
    expect(begins.encode('the')).toEqual([1, ...bloom.encode('the')]);
    expect([...begins.documentEncoder({ addSpecialTokens: false })('the')]).toEqual(bloom.encode('the'));
    expect(begins.encode('the', { addSpecialTokens: false })).toEqual(bloom.encode('the'));
  });

  test('prefers the longest added token', () => {
    const added = (content: string, id: number) => ({ id, content, special: true, normalized: false });
    const tokenizer = createTokenizer({
      ...json,
      added_tokens: [added('<a', 600), added('<a>', 601), added('a.*b', 602)],
    });
    for (const value of ['x<a>y', '<a<a>', 'a.*b axxb', '<<a>>']) {
      expect([...tokenizer.documentEncoder()(value)]).toEqual(tokenizer.encode(value));
    }
    expect(tokenizer.encode('<a<a>a.*b')).toEqual([600, 601, 602]);
    expect(tokenizer.vocabSize).toBe(603);
  });
});

test('cuts GPT-2 pieces at the white space of Unicode, not of JavaScript', () => {
  const json = JSON.parse(fs.readFileSync(join(golden, 'tokenizer.json'), 'utf8'));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, use_regex: true };
  const spelt = { type: 'Split', pattern: { Regex: PRE_SPLIT_PATTERNS.gpt2 }, behavior: 'Isolated', invert: false };
  const implicit = createTokenizer({ ...json, pre_tokenizer: byteLevel });
  const explicit = createTokenizer({
    ...json,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [spelt, { ...byteLevel, use_regex: false }] },
  });
  // '!' and U+FEFF are one piece for the Rust library, and a merge may join what one piece holds.
  const merged = { ...json.model, vocab: { ...json.model.vocab, '!ï': 512 }, merges: ['! ï', ...json.model.merges] };
  const joins = createTokenizer({ ...json, model: merged, pre_tokenizer: byteLevel });
  expect(joins.encode('!\ufeff')[0]).toBe(512);
  for (const text of ['a\ufeffb', '\u0085\u0085 x', "it's I'LL  go \n", '!\ufeff ?']) {
    expect(implicit.encode(text)).toEqual(explicit.encode(text));
  }
});

test('streams decoders that depend on neighbours: leading spaces and byte tokens', () => {
  const bytes = Object.fromEntries(
    Array.from({ length: 256 }, (_, b) => [`<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`, b + 3]),
  );
  const tokenizer = createTokenizer({
    added_tokens: [{ id: 1, content: '<s>', special: true, normalized: false }],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      byte_fallback: true,
      vocab: { '<unk>': 0, '<s>': 1, '</s>': 2, ...bytes, '▁': 259, a: 260, b: 261, '▁a': 262 },
      merges: [['▁', 'a']],
    },
  });
  const text = 'a b a é🦊 a';
  const ids = tokenizer.encode(text);
  expect(tokenizer.decode(ids)).toBe(text);
  expect(streamed(tokenizer, ids)).toBe(text);
  expect(streamed(tokenizer, [1, ...ids, 1], true)).toBe(tokenizer.decode([1, ...ids, 1], { skipSpecialTokens: true }));
  expect(streamed(tokenizer, ids.slice(0, -4))).toBe(tokenizer.decode(ids.slice(0, -4)));
  expect([...tokenizer.documentEncoder()(text)]).toEqual(ids);
});
