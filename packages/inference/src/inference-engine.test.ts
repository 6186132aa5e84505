/** The engine on the golden models: what it gives, on every device, from every kind of folder, and what it refuses. */
import { type DeviceName, device as deviceOf, liveTensors, unpackNumbers } from '@ds/core-native';
import { computingDevices } from '../../../test/support/devices';
import { type GoldenModel, goldenModels, goldenPath, readGolden } from '../../../test/support/golden';
import { largestDifference, norm } from '../../../test/support/golden-bloom';
import { ModelFolderCopy } from '../test-support/model-folders';
import { InferenceEngine } from './index';

// The plain loops of `ref` and the emulated GPU are slow where other work shares the machine.
jest.setTimeout(240_000);

const cases = computingDevices.flatMap((device) => goldenModels.map((model) => [device, model] as const));

describe.each(cases)('an engine on %s with %s', (device: DeviceName, name: GoldenModel) => {
  const { prompts } = readGolden(name);
  const before = liveTensors();
  let engine: InferenceEngine;
  beforeAll(async () => {
    engine = await InferenceEngine.load(goldenPath(name), { device });
  });
  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
    expect(liveTensors()).toBe(before);
  });

  it('gives the last logits of 8 texts within 1e-4', async () => {
    for (const { text, last_logits } of prompts) {
      const logits = await engine.logits(text);
      expect(logits).toBeInstanceOf(Float32Array);
      expect(largestDifference(logits, last_logits)).toBeLessThan(1e-4);
    }
  });

  it('gives the losses within 1e-5', async () => {
    for (const { input_ids, loss } of prompts)
      expect(Math.abs((await engine.loss(input_ids)) - loss)).toBeLessThan(1e-5);
  });

  it('writes the 32 greedy tokens of each prompt, with a cache', async () => {
    for (const { text, input_ids, greedy_ids, greedy_text } of prompts) {
      const result = await engine.generate(text, { maxNewTokens: 32 }).final();
      expect(result).toMatchObject({
        promptIds: input_ids,
        ids: greedy_ids,
        text: greedy_text,
        finishReason: 'length',
      });
    }
  });

  it('writes the same in one batch, padded on the left', async () => {
    const results = await engine.generateBatch(
      prompts.map(({ text }) => text),
      { maxNewTokens: 32 },
    );
    expect(results.map(({ ids }) => ids)).toEqual(prompts.map(({ greedy_ids }) => greedy_ids));
    expect(results.map(({ text }) => text)).toEqual(prompts.map(({ greedy_text }) => greedy_text));
  });

  it('writes the same without a cache', async () => {
    const { input_ids, greedy_ids } = prompts[device === 'cpu' ? 7 : 0]!;
    const ids = [...input_ids];
    for (const _ of greedy_ids) {
      const logits = await engine.logits(ids);
      ids.push(logits.indexOf(Math.max(...logits)));
    }
    expect(ids.slice(input_ids.length)).toEqual(greedy_ids);
  });
});

describe('a folder', () => {
  const [prompt] = readGolden('bloom-tiny').prompts;

  async function logitsFrom(folder: string, options = {}): Promise<Float32Array> {
    await using engine = await InferenceEngine.load(folder, options);
    return await engine.logits(prompt!.input_ids);
  }

  it('in shards is the same model', async () => {
    const single = await logitsFrom(goldenPath('bloom-tiny'));
    expect(await logitsFrom(goldenPath('bloom-tiny', 'sharded'))).toEqual(single);
  });

  it.each(['bf16', 'f16'] as const)('with %s weights is computed in f32 from exactly these', async (dtype) => {
    using folder = new ModelFolderCopy('bloom-tiny').rounded(dtype);
    using widened = new ModelFolderCopy('bloom-tiny').rounded(dtype).tensors((tensors) => {
      for (const [name, { bytes, shape }] of tensors) {
        const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
        const values = Float32Array.from(unpackNumbers(dtype, bits));
        tensors.set(name, { dtype: 'f32', shape, bytes: new Uint8Array(values.buffer) });
      }
    });
    expect(await logitsFrom(folder.folder)).toEqual(await logitsFrom(widened.folder));
  });

  it.each([
    ['bf16', 0.05],
    ['f16', 0.005],
  ] as const)('held in %s gives f32 logits that are off by at most %d', async (dtype, bound) => {
    const exact = prompt!.last_logits;
    for (const device of computingDevices) {
      const logits = await logitsFrom(goldenPath('bloom-tiny'), { dtype, device });
      expect(logits).toBeInstanceOf(Float32Array);
      const error = norm(logits.map((logit, i) => logit - exact[i]!)) / norm(exact);
      expect(error).toBeLessThan(bound);
      expect(error).toBeGreaterThan(bound / 100);
    }
  });

  it('says how far loading is, to the last byte', async () => {
    const seen: number[] = [];
    let total = 0;
    const onProgress = ({ bytesDone, bytesTotal }: { bytesDone: number; bytesTotal: number }) => {
      seen.push(bytesDone);
      total = bytesTotal;
    };
    await using engine = await InferenceEngine.load(goldenPath('bloom-tiny'), { onProgress });
    expect(engine.shape).toMatchObject({ vocabSize: 512, layers: 2, heads: 8, headSize: 8 });
    expect(total).toBe(132_992 * 4);
    expect(seen.at(-1)).toBe(total);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  it.each<[string, (folder: ModelFolderCopy) => void, string, RegExp]>([
    ['without a tensor', (f) => f.tensors((t) => t.delete('transformer.ln_f.bias')), 'FORMAT', /ln_f\.bias/],
    [
      'with a tensor too many',
      (f) => f.tensors((t) => t.set('transformer.h.2.ln.bias', t.get('transformer.ln_f.bias')!)),
      'FORMAT',
      /h\.2\.ln\.bias/,
    ],
    [
      'with a tensor of another shape',
      (f) => f.tensors((t) => t.set('transformer.ln_f.bias', { ...t.get('transformer.ln_f.bias')!, shape: [8, 8] })),
      'FORMAT',
      /\[64\] for tensor transformer\.ln_f\.bias in .*model\.safetensors, got \[8, 8\]/,
    ],
    [
      'with a tensor of integers',
      (f) => f.tensors((t) => t.set('transformer.ln_f.bias', { ...t.get('transformer.ln_f.bias')!, dtype: 'i32' })),
      'DTYPE',
      /transformer\.ln_f\.bias in .*, got i32/,
    ],
    [
      'of another size than its config',
      (f) => f.json('config.json', { hidden_size: 32 }),
      'FORMAT',
      /\[512, 32\]|\[32\]/,
    ],
    [
      'with fewer layers than its config',
      (f) => f.json('config.json', { n_layer: 3 }),
      'FORMAT',
      /h\.2\.input_layernorm/,
    ],
    ['of another family', (f) => f.json('config.json', { model_type: 'gpt5' }), 'UNSUPPORTED', /"gpt5"/],
    ['of no family', (f) => f.json('config.json', { model_type: undefined }), 'FORMAT', /model_type/],
    ['without a config', (f) => f.remove('config.json'), 'IO', /config\.json/],
    ['without weights', (f) => f.remove('model.safetensors'), 'IO', /model\.safetensors/],
    [
      'whose tokenizer has more tokens than the model',
      (f) =>
        f.json('config.json', { vocab_size: 500 }).tensors((t) => {
          const table = t.get('transformer.word_embeddings.weight')!;
          const bytes = table.bytes.slice(0, 500 * 64 * 4);
          t.set('transformer.word_embeddings.weight', { ...table, shape: [500, 64], bytes });
        }),
      'FORMAT',
      /at most 500 tokens .* 511/,
    ],
    ['with a bad end token', (f) => f.json('generation_config.json', { eos_token_id: 'x' }), 'FORMAT', /eos_token_id/],
  ])('%s is refused, and leaves nothing in memory', async (_, change, code, message) => {
    using folder = new ModelFolderCopy('bloom-tiny');
    change(folder);
    const before = liveTensors();
    await expect(InferenceEngine.load(folder.folder)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(liveTensors()).toBe(before);
  });

  it('without a tokenizer takes ids, and says so when it gets a text', async () => {
    using folder = new ModelFolderCopy('bloom-tiny').remove('tokenizer.json');
    await using engine = await InferenceEngine.load(folder.folder);
    const { ids, text } = await engine.generate(prompt!.input_ids, { maxNewTokens: 3 }).final();
    expect({ ids, text }).toEqual({ ids: prompt!.greedy_ids.slice(0, 3), text: '' });
    expect(() => engine.generate('a')).toThrow(/tokenizer\.json/);
    expect(() => engine.generate([5], { stop: 'x' })).toThrow(/stop texts/);
  });
});

describe('loading', () => {
  it.each<[object, string, RegExp]>([
    [{ devise: 'cpu' }, 'CONFIG', /devise. did you mean device\?/i],
    [{ dtype: 'int8' }, 'CONFIG', /"f32" or "bf16" or "f16" for dtype, got "int8"/],
    [{ onProgress: 5 }, 'CONFIG', /a function for onProgress, got 5/],
    [{ device: 'tpu' }, 'DEVICE', /tpu/],
    [{ device: 'null' }, 'DEVICE', /computes/],
  ])('refuses %j', async (options, code, message) => {
    await expect(InferenceEngine.load(goldenPath('bloom-tiny'), options)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it('ends at an abort and at the memory limit, leaving nothing behind', async () => {
    const before = liveTensors();
    const folder = goldenPath('bloom-tiny');
    const abort = new AbortController();
    const loading = InferenceEngine.load(folder, { signal: abort.signal, onProgress: () => abort.abort('enough') });
    await expect(loading).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
    expect(liveTensors()).toBe(before);
    deviceOf('ref').setLimit(200_000);
    try {
      await expect(InferenceEngine.load(folder, { device: 'ref' })).rejects.toMatchObject({ code: 'OOM' });
    } finally {
      deviceOf('ref').setLimit(Number.POSITIVE_INFINITY);
    }
    expect(liveTensors()).toBe(before);
  });

  it('is followed by refusals once the engine is gone', async () => {
    const engine = await InferenceEngine.load(goldenPath('bloom-tiny'));
    await engine[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
    expect(() => engine.generate('a')).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    await expect(engine.logits('a')).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(engine.loss('a b')).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});
