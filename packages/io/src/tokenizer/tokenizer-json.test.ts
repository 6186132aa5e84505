import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import { mutate, randomFrom } from '../../test-support/mutate';
import { createTokenizer, loadTokenizer } from './load-tokenizer';

const golden = join(__dirname, '../../../../test/golden/bloom-tiny');

describe('a malformed tokenizer', () => {
  const folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
  afterAll(() => fs.rmSync(folder, { recursive: true }));
  type Json = ReturnType<typeof JSON.parse>;
  const copy = (): Json => JSON.parse(fs.readFileSync(join(golden, 'tokenizer.json'), 'utf8'));
  const token = { id: 600, content: '<x>', special: false };

  function refusal(change: (json: Json) => void, config: unknown = {}): DsError {
    const json = copy();
    change(json);
    fs.writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(json));
    fs.writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
    try {
      loadTokenizer(folder);
    } catch (error) {
      if (DsError.is(error)) return error;
      throw error;
    }
    throw new Error('accepted');
  }

  const cases: [title: string, change: (json: Json) => void, message: RegExp, code?: string][] = [
    ['no model', (json) => delete json.model, /an object model in .*tokenizer.json/],
    [
      'unknown model',
      (json) => {
        json.model.type = 'Magic';
      },
      /BPE, Unigram or WordPiece.*"Magic/,
      'UNSUPPORTED',
    ],
    [
      'vocabulary list',
      (json) => {
        json.model.vocab = [];
      },
      /an object model.vocab/,
    ],
    [
      'negative id',
      (json) => {
        json.model.vocab.z = -1;
      },
      /ids from 0 to 999999 in model.vocab.*got "-1" for "z"/,
    ],
    [
      'fractional id',
      (json) => {
        json.model.vocab.z = 1.5;
      },
      /got "1.5" for "z"/,
    ],
    [
      'huge id',
      (json) => {
        json.model.vocab.z = 4e9;
      },
      /got "4000000000" for "z"/,
    ],
    [
      'one id for two tokens',
      (json) => {
        json.model.vocab.zzzz = 5;
      },
      /each id once.*got 5 for .* and "zzzz"/,
    ],
    ['no merges', (json) => delete json.model.merges, /a list model.merges/],
    [
      'a merge of three',
      (json) => {
        json.model.merges[7] = 'a b c';
      },
      /"left right" as model.merges\[7\]/,
    ],
    [
      'mixed merges',
      (json) => {
        json.model.merges[7] = ['a', 'b'];
      },
      /as model.merges\[7\]/,
    ],
    [
      'a merge outside the vocabulary',
      (json) => {
        json.model.merges.push('zz yy');
      },
      /tokens of model.merges\[252\] in model.vocab.*"zz"/,
    ],
    [
      'a merge whose result is missing',
      (json) => {
        json.model.merges.push('z y');
      },
      /got "zy"/,
    ],
    [
      'dropout',
      (json) => {
        json.model.dropout = 0.1;
      },
      /no dropout/,
      'UNSUPPORTED',
    ],
    [
      'unknown step',
      (json) => {
        json.pre_tokenizer = { type: 'Nonsense' };
      },
      /Unknown PreTokenizer type: Nonsense/,
      'UNSUPPORTED',
    ],
    [
      'long pattern',
      (json) => {
        json.pre_tokenizer.pretokenizers[0].pattern.Regex = 'a'.repeat(9000);
      },
      /at most 8192 characters in the pattern of pre_tokenizer.pretokenizers\[0\].pattern/,
    ],
    [
      'added token without text',
      (json) => json.added_tokens.push({ ...token, content: '' }),
      /text as added_tokens\[4\].content/,
    ],
    ['added token with a taken id', (json) => json.added_tokens.push({ ...token, id: 5 }), /one token per id/],
    ['added token with a second id', (json) => json.added_tokens.push({ ...token, content: '!' }), /one token per id/],
    [
      'added token with a huge id',
      (json) => json.added_tokens.push({ ...token, id: 1e9 }),
      /an id from 0 to 999999 as added_tokens\[4\].id/,
    ],
    [
      'whole-word token',
      (json) => json.added_tokens.push({ ...token, single_word: true }),
      /single_word false/,
      'UNSUPPORTED',
    ],
    [
      'too many added tokens',
      (json) => {
        json.added_tokens = new Array(16_385).fill(token);
      },
      /at most 16384 added tokens/,
    ],
  ];
  test.each(cases)('is refused: %s', (_title, change, message, code = 'FORMAT') => {
    const error = refusal(change);
    expect(error.message).toMatch(message);
    expect(error).toMatchObject({ code, hint: expect.stringMatching(/\w/) });
  });

  test('is refused when a role names no token, or the chat template is huge', () => {
    const keep = (): void => undefined;
    expect(refusal(keep, { eos_token: '<|end|>' }).message).toMatch(/the eos token "<\|end\|>" in the vocabulary of/);
    expect(refusal(keep, { chat_template: 'x'.repeat(300_000) }).message).toMatch(
      /chat_template of at most 262144 bytes/,
    );
  });

  test('is refused when the file is missing, no JSON, or repeats a token', () => {
    expect(() => loadTokenizer(join(folder, 'absent'))).toThrow(/absent/);
    expect(() => loadTokenizer(join(golden, 'sharded'))).toThrow(/tokenizer.json, got no such file/);
    fs.writeFileSync(join(folder, 'tokenizer.json'), '{"model":{"vocab":{"a":1,"a":2}}}');
    expect(() => loadTokenizer(folder)).toThrow(/each key once.*"a" twice/);
  });

  test('is refused for pieces of length 0, and named when a step lacks a setting', () => {
    const fixed = { type: 'FixedLength', length: 0 };
    expect(refusal((json) => Object.assign(json, { pre_tokenizer: fixed })).message).toMatch(
      /a length of 1 or more in pre_tokenizer/,
    );
    const broken = createTokenizer({ ...copy(), post_processor: { type: 'TemplateProcessing' } }, {}, 'its file');
    expect(() => broken.encode('x')).toThrow(
      expect.objectContaining({ code: 'FORMAT', expected: 'usable steps in its file' }),
    );
  });

  test('2,000 damaged files are refused cleanly or give a tokenizer that works or says why not', () => {
    const seed = fs.readFileSync(join(golden, 'tokenizer.json'));
    // Damage the steps as often as the vocabulary, which is much longer.
    const head = seed.indexOf('"model"');
    const random = randomFrom(31);
    const path = join(folder, 'tokenizer.json');
    fs.writeFileSync(join(folder, 'tokenizer_config.json'), '{}');
    let accepted = 0;
    for (let round = 0; round < 2000; round++) {
      const damaged =
        round % 2 === 0
          ? mutate(seed, random)
          : Buffer.concat([mutate(seed.subarray(0, head), random), seed.subarray(head)]);
      fs.writeFileSync(path, damaged);
      try {
        const tokenizer = loadTokenizer(path);
        accepted++;
        tokenizer.decode(tokenizer.encode('The river, runs </s> père 🦊'));
      } catch (error) {
        if (!DsError.is(error)) throw error;
      }
    }
    expect(accepted).toBeGreaterThan(20);
  });

  test('takes roles from special_tokens_map.json and from objects', () => {
    fs.writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(copy()));
    fs.writeFileSync(
      join(folder, 'tokenizer_config.json'),
      JSON.stringify({ bos_token: { content: '<s>' }, eos_token: null }),
    );
    fs.writeFileSync(join(folder, 'special_tokens_map.json'), JSON.stringify({ eos_token: '</s>' }));
    const { bosTokenId, eosTokenId, padTokenId } = loadTokenizer(folder);
    expect([bosTokenId, eosTokenId, padTokenId]).toEqual([1, 2, undefined]);
  });
});
