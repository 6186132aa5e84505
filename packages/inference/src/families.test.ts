/** Every dense family through the engine against transformers' numbers: on every device, cached, batched, in pieces. */
import { type DeviceName, liveTensors, type PackedFormat } from '@ds/core-native';
import { computingDevices } from '../../../test/support/devices';
import { largestDifference, norm } from '../../../test/support/golden-bloom';
import {
  configFiles,
  type DenseFamily,
  denseFamilies,
  familyPath,
  readFamilyGolden,
} from '../../../test/support/golden-families';
import { ModelFolderCopy } from '../test-support/model-folders';
import { DecoderRunner } from './decoder/decoder-runner';
import { InferenceEngine, type LoadOptions } from './index';
import { loadFolder } from './model/load-folder';
import type { ModelInMemory } from './model/model-in-memory';

// The plain loops of `ref` and the emulated GPU are slow where other work shares the machine.
jest.setTimeout(240_000);

async function logitsFrom(folder: string, ids: readonly number[], options: LoadOptions = {}): Promise<Float32Array> {
  await using engine = await InferenceEngine.load(folder, options);
  return await engine.logits(ids);
}

function relativeError(got: ArrayLike<number>, wanted: readonly number[]): number {
  return norm(wanted.map((value, i) => got[i]! - value)) / norm(wanted);
}

const greedyOptions = { maxNewTokens: 24, ignoreEos: true };

const cases = computingDevices.flatMap((device) => denseFamilies.map((family) => [device, family] as const));

describe.each(cases)('an engine on %s with %s', (device: DeviceName, family: DenseFamily) => {
  const { prompts, params } = readFamilyGolden(family);
  const emulated = device.startsWith('cuda');
  const shown = emulated ? prompts.slice(0, 2) : prompts;
  const newTokens = emulated ? 6 : 24;
  const before = liveTensors();
  let engine: InferenceEngine;
  let bytesTotal = 0;
  beforeAll(async () => {
    const onProgress = (progress: { bytesTotal: number }) => {
      bytesTotal = progress.bytesTotal;
    };
    engine = await InferenceEngine.load(familyPath(family), { device, onProgress });
  });
  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
    expect(liveTensors()).toBe(before);
  });

  it('gives the last logits within 1e-4 and the losses within 1e-5', async () => {
    expect(bytesTotal).toBe(params * 4);
    for (const { input_ids, last_logits, loss } of shown) {
      expect(largestDifference(await engine.logits(input_ids), last_logits)).toBeLessThan(1e-4);
      if (loss !== null) expect(Math.abs((await engine.loss(input_ids)) - loss)).toBeLessThan(1e-5);
    }
  });

  it('writes the greedy tokens of each prompt, alone and in one batch', async () => {
    const options = { ...greedyOptions, maxNewTokens: newTokens };
    const wanted = shown.map(({ greedy_ids }) => greedy_ids.slice(0, newTokens));
    const alone = shown.map(({ input_ids }) => engine.generate(input_ids, options).final());
    expect((await Promise.all(alone)).map(({ ids }) => ids)).toEqual(wanted);
    const batch = await engine.generateBatch(
      shown.map(({ input_ids }) => input_ids),
      options,
    );
    expect(batch.map(({ ids }) => ids)).toEqual(wanted);
  });
});

describe.each(denseFamilies)('%s on the CPU', (family) => {
  const { prompts, overrides, half = [], weight_files } = readFamilyGolden(family);
  const folder = familyPath(family);

  async function withModel<T>(use: (memory: ModelInMemory) => Promise<T>, options: LoadOptions = {}): Promise<T> {
    const { model } = await loadFolder(folder, options);
    try {
      return await use({ model, users: new Set() });
    } finally {
      model[Symbol.dispose]();
    }
  }

  it('gives the hidden states of every stage: their norms within 1e-5', async () => {
    await withModel(async ({ model }) => {
      for (const { input_ids, hidden_l2 } of prompts) {
        const T = input_ids.length;
        using runner = new DecoderRunner(model, { pages: Math.ceil(T / 16) });
        const batch = {
          ids: Int32Array.from(input_ids),
          starts: Int32Array.of(0, T),
          past: Int32Array.of(0),
          pages: [Int32Array.from({ length: runner.pages }, (_, i) => i)],
          logitRows: new Int32Array(),
          want: 'logits' as const,
        };
        const stages: { numbers(): Promise<Float64Array>; dispose(): void }[] = [];
        await runner.inspect(batch, (x) => stages.push(x.retain()));
        stages.splice(-2, 1)[0]!.dispose(); // the last layer's output, before the final norm
        const norms = await Promise.all(stages.map(async (x) => norm(await x.numbers())));
        for (const stage of stages) stage.dispose();
        expect(norms).toHaveLength(hidden_l2.length);
        for (const [i, wanted] of hidden_l2.entries()) expect(Math.abs(norms[i]! / wanted - 1)).toBeLessThan(1e-5);
      }
    });
  });

  it('writes the same without a cache', async () => {
    await using engine = await InferenceEngine.load(folder);
    for (const { input_ids, greedy_ids } of prompts) {
      const ids = [...input_ids];
      for (const _ of greedy_ids) {
        const logits = await engine.logits(ids);
        ids.push(logits.indexOf(Math.max(...logits)));
      }
      expect(ids.slice(input_ids.length)).toEqual(greedy_ids);
    }
  });

  it('reads the config of released folders, and every weight file', async () => {
    const { input_ids, last_logits } = prompts[2]!;
    for (const config of configFiles)
      for (const file of Object.keys(weight_files)) {
        using copy = new ModelFolderCopy(`families/${family}`)
          .take(config, 'config.json')
          .take(file, 'model.safetensors');
        expect(largestDifference(await logitsFrom(copy.folder, input_ids), last_logits)).toBeLessThan(1e-4);
      }
  });

  for (const { config, prompt, last_logits } of overrides)
    it(`obeys ${JSON.stringify(config)}`, async () => {
      using copy = new ModelFolderCopy(`families/${family}`).json('config.json', config);
      const logits = await logitsFrom(copy.folder, prompts[prompt]!.input_ids);
      expect(largestDifference(logits, last_logits)).toBeLessThan(1e-4);
    });

  for (const { file, prompt, last_logits } of half)
    it(`computes ${file} in f32, from exactly what it holds`, async () => {
      using copy = new ModelFolderCopy(`families/${family}`).take(file, 'model.safetensors');
      for (const weights of ['f32', file.includes('bf16') ? 'bf16' : 'f16'] as const) {
        const logits = await logitsFrom(copy.folder, prompts[prompt]!.input_ids, { weights });
        expect(largestDifference(logits, last_logits)).toBeLessThan(1e-4);
      }
    });

  // Rounding by 2^-9, 2^-12, and to 255 and 16 steps a block of 32, as a tiny random model magnifies it. In q8 and q4 a number that
  // lies between two steps of 8 bits may go one way on the CPU and the other on ref.
  it.each<[PackedFormat, number]>([
    ['bf16', 0.03],
    ['f16', 0.004],
    ['q8', 0.12],
    ['q4', 0.8],
  ])('holds its weights in %s: logits off by less than %d, on the CPU as on ref', async (weights, bound) => {
    const { input_ids, last_logits } = prompts[2]!;
    const cpu = await logitsFrom(folder, input_ids, { weights });
    const ref = await logitsFrom(folder, input_ids, { weights, device: 'ref' });
    expect(relativeError(cpu, last_logits)).toBeLessThan(bound);
    expect(relativeError(cpu, last_logits)).toBeGreaterThan(bound / 1000);
    expect(relativeError(cpu, [...ref])).toBeLessThan(weights.startsWith('q') ? 0.05 : 1e-5);
  });

  it('keeps keys and values in 16 bits if asked to', async () => {
    const { input_ids, last_logits } = prompts[2]!;
    for (const [dtype, bound] of [
      ['bf16', 0.03],
      ['f16', 0.004],
    ] as const) {
      const error = relativeError(await logitsFrom(folder, input_ids, { dtype, weights: 'f32' }), last_logits);
      expect(error).toBeLessThan(bound);
      expect(error).toBeGreaterThan(1e-5);
    }
  });
});

describe('lengths', () => {
  const text = (length: number) => Array.from({ length }, (_, i) => 4 + ((i * i * 7 + i * 3) % 300));

  it.each(['gpt2', 'opt', 'llama', 'mistral'] as const)(
    'around pages, one token and the whole context: %s',
    async (family) => {
      await using engine = await InferenceEngine.load(familyPath(family));
      const limit = engine.shape.contextTokens;
      for (const length of [1, 15, 16, 17, 31, 32, 33, limit - 1, limit]) {
        const ids = text(length);
        const logits = await engine.logits(ids);
        const wanted = logits.indexOf(Math.max(...logits));
        const { ids: got, finishReason } = await engine.generate(ids, { maxNewTokens: 1 }).final();
        expect([length, ...got]).toEqual([length, wanted]);
        expect(finishReason).toBe(wanted === 2 ? 'end' : 'length');
      }
    },
  );

  it('beyond the context are refused before anything runs, naming the limit', async () => {
    await using engine = await InferenceEngine.load(familyPath('gpt2'));
    const refused = (message: RegExp) =>
      expect.objectContaining({ code: 'CONFIG', message: expect.stringMatching(message) });
    const tooLong = refused(/at most 72 tokens: the model reads 72, got 73/);
    await expect(engine.logits(text(73))).rejects.toEqual(tooLong);
    expect(() => engine.generate(text(73))).toThrow(tooLong);
    await expect(engine.generateBatch([text(3), text(73)])).rejects.toEqual(tooLong);
    await expect(engine.loss(text(74))).rejects.toEqual(refused(/at most 73 tokens: the model reads 72, got 74/));
    expect(await engine.loss(text(73))).toBeGreaterThan(0);
    const tooMany = refused(/at most 33 for maxNewTokens behind 40 prompt tokens: the model reads 72, got 34/);
    expect(() => engine.generate(text(40), { maxNewTokens: 34 })).toThrow(tooMany);
  });

  it('that nobody asked for end with the context', async () => {
    await using engine = await InferenceEngine.load(familyPath('gpt2'));
    const { ids, finishReason } = await engine.generate(text(60), { ignoreEos: true }).final();
    expect({ count: ids.length, finishReason }).toEqual({ count: 13, finishReason: 'length' });
    const batch = await engine.generateBatch([text(60), text(71)], { ignoreEos: true });
    expect(batch.map((result) => result.ids.length)).toEqual([13, 2]);
  });

  it('may be bounded when a model is loaded', async () => {
    await using engine = await InferenceEngine.load(familyPath('llama'), { contextTokens: 10 });
    await expect(engine.logits(text(11))).rejects.toThrow(
      /the model reads 10, got 11.*load the model with a larger contextTokens, up to 128/,
    );
    await expect(InferenceEngine.load(familyPath('llama'), { contextTokens: 129 })).rejects.toMatchObject({
      code: 'CONFIG',
      message: expect.stringMatching(/contextTokens of at most 128, as .*config\.json says, got 129/),
    });
  });

  it('decide which factors of longrope turn, for short texts, too', async () => {
    const { input_ids, last_logits } = readFamilyGolden('phi3-longrope').prompts[2]!;
    const long = await logitsFrom(familyPath('phi3-longrope'), input_ids, { contextTokens: 8192 });
    expect(largestDifference(long, last_logits)).toBeGreaterThan(0.1);
    const short = await logitsFrom(familyPath('phi3-longrope'), input_ids, { contextTokens: 4096 });
    expect(largestDifference(short, last_logits)).toBeLessThan(1e-4);
    // The same as a model whose short factors are the long ones.
    using copy = new ModelFolderCopy('families/phi3-longrope');
    const rope = JSON.parse(copy.text('config.json')).rope_parameters;
    copy.json('config.json', { rope_parameters: { ...rope, short_factor: rope.long_factor } });
    expect(await logitsFrom(copy.folder, input_ids)).toEqual(long);
  });

  it('grow past the first rows of the rotary table', async () => {
    using copy = new ModelFolderCopy('families/llama').json('config.json', { max_position_embeddings: 2500 });
    await using engine = await InferenceEngine.load(copy.folder);
    const ids = text(2400);
    const long = await engine.logits(ids);
    await using fresh = await InferenceEngine.load(copy.folder);
    await fresh.logits(text(3));
    expect(await fresh.logits(ids)).toEqual(long);
  });
});
