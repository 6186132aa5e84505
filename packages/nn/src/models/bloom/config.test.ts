/** BLOOM's config.json and tensor names, good ones and bad ones. */
import { readFileSync } from 'node:fs';
import { goldenModels, goldenPath, readGolden } from '../../../../../test/support/golden';
import { bloomConfigFromJson, bloomConfigToJson, bloomParameterCount, bloomPresets } from './config';
import { Bloom } from './model';
import { exportedName, matchBloomNames } from './names';

function readConfig(name: string): Record<string, unknown> {
  return JSON.parse(readFileSync(goldenPath(name, 'config.json'), 'utf8'));
}

describe('the config of a BLOOM', () => {
  it('is read by the new and by the old key names', () => {
    const json = readConfig('bloom-tiny');
    const { hidden_size: n_embed, n_head: num_attention_heads, n_layer: num_hidden_layers, ...rest } = json;
    expect(bloomConfigFromJson({ ...rest, n_embed, num_attention_heads, num_hidden_layers })).toEqual(
      bloomConfigFromJson(json),
    );
    expect(bloomConfigFromJson(json)).toMatchObject({ hiddenSize: 64, heads: 8, layers: 2, vocabSize: 512 });
    expect(bloomConfigFromJson(readConfig('bloom-tiny-h6'))).toMatchObject({ hiddenSize: 48, heads: 6 });
  });

  it.each(goldenModels)('%s comes back from what is written', (name) => {
    const config = bloomConfigFromJson(readConfig(name));
    expect(bloomConfigFromJson(bloomConfigToJson(config, 'float32'))).toEqual(config);
    expect(bloomParameterCount(config)).toBe(readGolden(name).params);
  });

  it('counts the parameters of the six released sizes', () => {
    const { param_count } = JSON.parse(readFileSync(goldenPath('formulas.json'), 'utf8')) as {
      param_count: Record<string, number>;
    };
    expect(Object.keys(param_count).length).toBe(6);
    const counts = Object.values(bloomPresets).map(bloomParameterCount);
    for (const params of Object.values(param_count)) expect(counts).toContain(params);
  });

  it.each([
    [{ model_type: 'llama' }, 'UNSUPPORTED', '"llama"'],
    [{ tie_word_embeddings: false }, 'UNSUPPORTED', 'tie_word_embeddings'],
    [{ n_head: 7 }, 'FORMAT', '64 and 7 heads'],
    [{ n_layer: 1.5 }, 'FORMAT', '1.5'],
    [{ vocab_size: '512' }, 'FORMAT', 'vocab_size'],
    [{ hidden_size: undefined }, 'FORMAT', 'hidden_size or n_embed'],
    [{ hidden_dropout: 1 }, 'FORMAT', 'hiddenDropout'],
  ])('with %j is refused', (changes, code, part) => {
    expect(() => bloomConfigFromJson({ ...readConfig('bloom-tiny'), ...changes })).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(part) }),
    );
  });
});

describe('the tensor names of a BLOOM', () => {
  const wanted = new Bloom(bloomPresets['bloom-tiny']!).parameters.map(({ name }) => name);

  it('are found with the prefix and without it, the tied head aside', () => {
    expect(matchBloomNames(wanted, wanted, 'f').get('ln_f.bias')).toBe('ln_f.bias');
    const prefixed = [...wanted.map(exportedName), 'lm_head.weight'];
    expect(matchBloomNames(wanted, prefixed, 'f').get('ln_f.bias')).toBe('transformer.ln_f.bias');
  });

  it.each([
    ['missing', wanted.slice(1), wanted[0]],
    ['extra', [...wanted, 'h.2.mlp.dense_4h_to_h.bias'], 'h.2.mlp.dense_4h_to_h.bias'],
    ['misspelt', ['h.0.mlp.dense_h_to_4h.biass', ...wanted.slice(1)], 'h.0.mlp.dense_h_to_4h.biass'],
    ['doubled', [...wanted, 'transformer.ln_f.bias'], 'transformer.ln_f.bias'],
  ])('that are %s are named', (_, present, part) => {
    expect(() => matchBloomNames(wanted, present, 'model.safetensors')).toThrow(
      expect.objectContaining({ code: 'FORMAT', message: expect.stringContaining(part!) }),
    );
  });
});
