/** The families' descriptions against transformers' numbers, computed by plain loops; and what they refuse. */
import { readFileSync } from 'node:fs';
import { goldenModels, goldenPath, readGolden, readGoldenTensors } from '../../../../test/support/golden';
import { largestDifference, norm } from '../../../../test/support/golden-bloom';
import {
  configFiles,
  type DenseFamily,
  denseFamilies,
  describeFamily,
  readFamilyConfig,
  readFamilyGolden,
} from '../../../../test/support/golden-families';
import { type PlainResult, plainDecoder } from '../../../../test/support/plain-decoder';
import { parameterCount, tensorsOf } from './decoder/stored-weight';
import { matchTensorNames } from './decoder/tensor-names';
import { createModel, familyOf } from './families';

function fileOf(family: DenseFamily, name = 'model.safetensors') {
  return readGoldenTensors('families', family, name);
}

function lossOf({ logits }: PlainResult, ids: readonly number[]): number {
  const losses = ids.slice(1).map((target, p) => {
    const row = logits[p]!;
    const largest = Math.max(...row);
    return largest + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)) - row[target]!;
  });
  return losses.reduce((a, b) => a + b, 0) / losses.length;
}

describe.each(denseFamilies)('%s', (family) => {
  const golden = readFamilyGolden(family);

  it('has as many parameters as the reference, by both kinds of config', () => {
    for (const file of configFiles) {
      const description = describeFamily(family, {}, file);
      expect(parameterCount(description)).toBe(golden.params);
      expect(description.vocabSize).toBe(golden.vocab_size);
    }
    expect(describeFamily(family, {}, 'config.hub.json')).toEqual(describeFamily(family));
  });

  it.each(Object.keys(golden.weight_files))('gives logits, hidden states and losses from %s', (name) => {
    const run = plainDecoder(describeFamily(family), fileOf(family, name));
    expect(golden.prompts.map(({ input_ids }) => input_ids.length)).toEqual([1, 7, 24, 40]);
    for (const { input_ids, last_logits, hidden_l2, loss } of golden.prompts) {
      const result = run(input_ids);
      expect(largestDifference(result.logits.at(-1)!, last_logits)).toBeLessThan(2e-5);
      expect(result.hidden).toHaveLength(hidden_l2.length);
      for (const [i, wanted] of hidden_l2.entries())
        expect(Math.abs(norm(result.hidden[i]!.flatMap((row) => [...row])) / wanted - 1)).toBeLessThan(2e-6);
      if (loss !== null) expect(Math.abs(lossOf(result, input_ids) - loss)).toBeLessThan(2e-6);
    }
  });

  const { overrides, half = [] } = golden;
  for (const { config, prompt, last_logits, moved } of overrides)
    it(`obeys ${JSON.stringify(config)}`, () => {
      const { logits } = plainDecoder(
        describeFamily(family, config),
        fileOf(family),
      )(golden.prompts[prompt]!.input_ids);
      expect(moved).toBeGreaterThan(5e-4);
      expect(largestDifference(logits.at(-1)!, last_logits)).toBeLessThan(2e-5);
    });
  for (const { file, prompt, last_logits } of half)
    it(`gives the logits of ${file}`, () => {
      const { logits } = plainDecoder(describeFamily(family), fileOf(family, file))(golden.prompts[prompt]!.input_ids);
      expect(largestDifference(logits.at(-1)!, last_logits)).toBeLessThan(2e-5);
    });

  it('refuses tensors that are missing or too many, by name', () => {
    const description = describeFamily(family);
    const names = [...tensorsOf(description).keys()];
    const match = (present: string[]) => matchTensorNames({ ...description, names }, present, 'f');
    const last = names.at(-1)!;
    expect(() => match(names.slice(0, -1))).toThrow(expect.objectContaining({ code: 'FORMAT' }));
    expect(() => match(names.slice(0, -1))).toThrow(last);
    expect(() => match([...names, `${description.prefix}more.weight`])).toThrow(/also more\.weight/);
    expect(() => match([...names, description.prefix + last])).toThrow(`the tensor ${last} once`);
    expect(match(names.map((name) => description.prefix + name)).get(last)).toBe(description.prefix + last);
  });
});

describe.each(goldenModels)('%s', (name) => {
  const golden = readGolden(name);
  const config = JSON.parse(readFileSync(goldenPath(name, 'config.json'), 'utf8'));
  const describeWith = (changes: object = {}) => familyOf(config).describe({ ...config, ...changes }, 'config.json');
  const file = readGoldenTensors(name, 'model.safetensors');

  it('is described, too', () => {
    expect(parameterCount(describeWith())).toBe(golden.params);
    const run = plainDecoder(describeWith(), file);
    for (const { input_ids, last_logits } of golden.prompts.slice(0, 3))
      expect(largestDifference(run(input_ids).logits.at(-1)!, last_logits)).toBeLessThan(2e-5);
  });

  it('takes the residual behind the norm where the config says so', () => {
    const { prompt, last_logits } = golden.apply_residual_connection_post_layernorm;
    const run = plainDecoder(describeWith({ apply_residual_connection_post_layernorm: true }), file);
    const { logits } = run(golden.prompts[prompt]!.input_ids);
    expect(largestDifference(logits.at(-1)!, last_logits)).toBeLessThan(2e-5);
  });
});

describe('stored tensors that are no weights', () => {
  it.each<[DenseFamily, string]>([
    ['gpt2', 'transformer.h.0.attn.masked_bias'],
    ['gpt2', 'lm_head.weight'],
    ['opt', 'lm_head.weight'],
    ['llama', 'model.layers.0.self_attn.rotary_emb.inv_freq'],
    ['qwen2', 'lm_head.weight'],
    ['gpt_neox', 'gpt_neox.layers.1.attention.rotary_emb.inv_freq'],
    ['gpt_neox', 'gpt_neox.layers.1.attention.bias'],
  ])('of %s are ignored: %s', (family, name) => {
    const description = describeFamily(family);
    const names = [...tensorsOf(description).keys()];
    expect(matchTensorNames({ ...description, names }, [...names, name], 'f').size).toBe(names.length);
  });

  it('are not ignored where they are weights: the head of its own, and the bias of a projection', () => {
    for (const [family, name] of [
      ['llama', 'lm_head.weight'],
      ['gpt_neox', 'embed_out.weight'],
      ['gpt2', 'h.0.attn.c_attn.bias'],
      ['gpt_neox', 'layers.0.attention.dense.bias'],
    ] as const) {
      const description = describeFamily(family);
      const names = [...tensorsOf(description).keys()];
      expect(names).toContain(name);
      const others = names.filter((other) => other !== name);
      expect(() => matchTensorNames({ ...description, names }, others, 'f')).toThrow(`the tensors ${name}`);
    }
  });
});

describe('a config', () => {
  it.each<[DenseFamily, object, string, RegExp]>([
    [
      'llama',
      { hidden_act: 'mish' },
      'UNSUPPORTED',
      /config\.json: expected relu, silu, .* for hidden_act, got "mish"/,
    ],
    ['llama', { hidden_act: 'constructor' }, 'UNSUPPORTED', /got "constructor"/],
    [
      'llama',
      { rope_parameters: { rope_type: 'mrope' } },
      'UNSUPPORTED',
      /config\.json, rope_parameters: .*got "mrope"/,
    ],
    ['llama', { rope_parameters: { rope_type: 'linear', factor: 2, beta: 1 } }, 'UNSUPPORTED', /got beta/],
    ['llama', { rope_parameters: { rope_type: 'linear' } }, 'FORMAT', /the key factor, got only rope_type/],
    ['llama', { rope_parameters: { rope_type: 'linear', factor: 0.5 } }, 'FORMAT', /factor >= 1, got 0\.5/],
    ['llama', { rope_parameters: 7 }, 'FORMAT', /an object for rope_parameters, got 7/],
    ['llama', { layer_types: ['full_attention', 'chunked_attention'] }, 'UNSUPPORTED', /got "chunked_attention"/],
    ['llama', { layer_types: ['full_attention'] }, 'FORMAT', /a list of 2 layer_types/],
    ['llama', { layer_types: ['full_attention', 'sliding_attention'] }, 'FORMAT', /sliding_window .*, got none/],
    ['llama', { num_key_value_heads: 4 }, 'FORMAT', /num_key_value_heads that divide 6 heads, got 4/],
    ['llama', { head_dim: null, num_attention_heads: 5 }, 'FORMAT', /48 and 5 heads/],
    ['llama', { head_dim: 7 }, 'FORMAT', /an even number of rotated elements of 7 a head/],
    ['llama', { intermediate_size: null }, 'FORMAT', /config\.json: expected the key intermediate_size/],
    ['llama', { num_hidden_layers: 0 }, 'FORMAT', /whole number >= 1 for num_hidden_layers, got 0/],
    ['llama', { rms_norm_eps: '1e-5' }, 'FORMAT', /a number for rms_norm_eps, got "1e-5"/],
    ['llama', { attention_bias: 'no' }, 'FORMAT', /true or false for attention_bias, got "no"/],
    ['llama', { eos_token_id: ['x'] }, 'FORMAT', /an id or a list of ids for eos_token_id/],
    ['llama', { quantization_config: { quant_method: 'awq' } }, 'UNSUPPORTED', /quantization_config .*"awq"/],
    ['gpt2', { add_cross_attention: true }, 'UNSUPPORTED', /add_cross_attention/],
    ['gpt2', { n_head: 7 }, 'FORMAT', /40 and 7 heads/],
    ['opt', { layer_norm_elementwise_affine: false }, 'UNSUPPORTED', /layer_norm_elementwise_affine/],
    ['gpt_neox', { rope_parameters: { partial_rotary_factor: 0.1 } }, 'FORMAT', /rotated elements of 16 a head, got 1/],
    [
      'phi3-longrope',
      {
        partial_rotary_factor: 0.5,
        rope_parameters: {
          ...(readFamilyConfig('phi3-longrope').rope_parameters as object),
          partial_rotary_factor: 0.5,
        },
      },
      'FORMAT',
      /4 numbers for (short|long)_factor, .*, got 6/,
    ],
  ])('of %s with %j is refused', (family, changes, code, message) => {
    expect(() => describeFamily(family, changes as Record<string, unknown>)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  it('of a family that is not built is refused by name, with those that are', () => {
    for (const model_type of ['mixtral', 'olmoe', 'qwen2_moe', 'qwen3_moe', 'deepseek_v2', 'deepseek_v3'])
      expect(() => familyOf({ model_type })).toThrow(
        expect.objectContaining({
          code: 'UNSUPPORTED',
          message: expect.stringMatching(`"llama".*got "${model_type}"`),
        }),
      );
  });

  it('trains BLOOM; another family is refused by name, with what can be done', () => {
    const bloom = JSON.parse(readFileSync(goldenPath('bloom-tiny', 'config.json'), 'utf8'));
    using model = createModel(bloom);
    expect(model.shape.heads).toBe(8);
    expect(() => createModel(readFamilyConfig('llama'))).toThrow(
      expect.objectContaining({
        code: 'UNSUPPORTED',
        message: expect.stringMatching(/"bloom", got "llama".*can be run/),
      }),
    );
  });

  it('of GPT-NeoX says by old and new keys which part of a head is rotated, a quarter by default', () => {
    const size = (changes: Record<string, unknown>, file?: string) => {
      const { positions } = describeFamily('gpt_neox', changes, file);
      return positions.kind === 'rotary' ? [positions.size, positions.theta] : [];
    };
    expect(size({ rotary_pct: 0.5, rotary_emb_base: 7 }, 'config.hub.json')).toEqual([8, 7]);
    expect(size({ rope_parameters: { partial_rotary_factor: 0.75, rope_theta: 9 } })).toEqual([12, 9]);
    expect(size({ rope_parameters: undefined })).toEqual([4, 10_000]);
  });

  it('says how long texts may be', () => {
    const context = (family: DenseFamily, changes = {}) => describeFamily(family, changes).context;
    expect(context('gpt2')).toEqual({ tokens: 72, most: 72 });
    expect(context('opt')).toEqual({ tokens: 80, most: 80 });
    expect(context('llama')).toEqual({ tokens: 128, most: 128 });
    expect(context('phi3-longrope')).toEqual({ tokens: 4096, most: 131072 });
    const scaled = (rope: object) => context('llama', { rope_parameters: rope });
    expect(scaled({ rope_type: 'linear', factor: 4 })).toEqual({ tokens: 512, most: 512 });
    expect(scaled({ rope_type: 'dynamic', factor: 4 })).toEqual({ tokens: 128, most: 512 });
    const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 };
    expect(scaled(yarn)).toEqual({ tokens: 256, most: 256 });
  });

  it('without sliding_window is a Mistral with the window of 4096; with null one without', () => {
    const windows = (changes: object) =>
      describeFamily('mistral', changes as Record<string, unknown>).layers.map(({ attention }) => attention.window);
    expect(windows({})).toEqual([8, 8]);
    expect(windows({ sliding_window: undefined })).toEqual([4096, 4096]);
    expect(windows({ sliding_window: null })).toEqual([undefined, undefined]);
  });

  it('of an older Qwen 2 says by max_window_layers which layers slide', () => {
    const changes = { layer_types: undefined, use_sliding_window: true, sliding_window: 8, max_window_layers: 1 };
    const { layers } = describeFamily('qwen2', changes);
    expect(layers.map(({ attention }) => attention.window)).toEqual([undefined, 8, 8]);
  });
});
