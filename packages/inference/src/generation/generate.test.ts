/** Generation: streams, ends, stops, seeds, aborts; and that memory goes whatever happens. */
import { device, liveTensors } from '@ds/core-native';
import { goldenModels, goldenPath, readGolden } from '../../../../test/support/golden';
import { ModelFolderCopy } from '../../test-support/model-folders';
import { type GenerateOptions, InferenceEngine } from '../index';

const [first] = readGolden('bloom-tiny').prompts;
const prompt = first!;
let engine: InferenceEngine;
let idle: number;

beforeAll(async () => {
  engine = await InferenceEngine.load(goldenPath('bloom-tiny'));
  await engine.generate('a', { maxNewTokens: 1 }).final(); // the ALiBi slopes are made at the first use
  idle = liveTensors();
});
afterEach(() => expect(liveTensors()).toBe(idle));
afterAll(() => engine[Symbol.asyncDispose]());

const cacheBytes = () => device('cpu').account().owners['key-value cache']?.live ?? 0;

describe('a stream', () => {
  it('gives token after token, whose texts joined are the text, half characters held back', async () => {
    for (const model of goldenModels) {
      await using other = await InferenceEngine.load(goldenPath(model));
      for (const { text, greedy_ids, greedy_text } of readGolden(model).prompts) {
        const stream = other.generate(text, { maxNewTokens: 32 });
        const ids: number[] = [];
        const texts: string[] = [];
        for await (const token of stream) {
          ids.push(token.id);
          texts.push(token.text);
        }
        expect(ids).toEqual(greedy_ids);
        expect(texts.join('')).toBe(greedy_text);
        expect((await stream.final()).text).toBe(greedy_text);
      }
    }
  });

  it('computes nothing before it is asked, and nothing after it was left', async () => {
    const stream = engine.generate(prompt.text, { maxNewTokens: 32 });
    expect(cacheBytes()).toBe(0);
    for await (const { id } of stream) {
      expect(cacheBytes()).toBeGreaterThan(0);
      if (id === prompt.greedy_ids[2]) break;
    }
    expect(cacheBytes()).toBe(0);
    const { ids, finishReason } = await stream.final();
    expect({ ids, finishReason }).toEqual({ ids: prompt.greedy_ids.slice(0, 3), finishReason: 'closed' });
    await using untouched = engine.generate(prompt.text);
    expect(untouched).toBeDefined();
  });

  it('shares the engine with others that run at the same time', async () => {
    const { prompts } = readGolden('bloom-tiny');
    const texts = await Promise.all(prompts.map(({ text }) => engine.generate(text, { maxNewTokens: 32 }).text()));
    expect(texts).toEqual(prompts.map(({ greedy_text }) => greedy_text));
  });

  it('leaves the event loop free', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    const { seconds } = await engine.generate(prompt.text, { maxNewTokens: 64, ignoreEos: true }).final();
    clearInterval(timer);
    expect(seconds).toBeGreaterThan(0);
    expect(turns).toBeGreaterThan(5);
  });

  it('reads a prompt longer than one piece of it, alone and in a batch, as the model does at once', async () => {
    const long = Array.from({ length: 1100 }, (_, i) => 4 + ((i * i * 7 + i * 3) % 500));
    const logits = await engine.logits(long);
    const wanted = logits.indexOf(Math.max(...logits));
    expect((await engine.generate(long, { maxNewTokens: 1 }).final()).ids).toEqual([wanted]);
    const [short, both] = await engine.generateBatch([prompt.input_ids, long], { maxNewTokens: 4, ignoreEos: true });
    expect(both!.ids[0]).toBe(wanted);
    expect(short!.ids).toEqual(prompt.greedy_ids.slice(0, 4));
  });
});

describe('a text ends', () => {
  const end = prompt.greedy_ids[3]!;

  it('at an end-of-text token of generation_config.json, or of config.json', async () => {
    for (const [file, eos] of [
      ['generation_config.json', [509, end]],
      ['config.json', end],
    ] as const) {
      using folder = new ModelFolderCopy('bloom-tiny').json(file, { eos_token_id: eos });
      await using other = await InferenceEngine.load(folder.folder);
      const { ids, finishReason } = await other.generate(prompt.text, { maxNewTokens: 32 }).final();
      expect({ ids, finishReason }).toEqual({ ids: prompt.greedy_ids.slice(0, 4), finishReason: 'end' });
      const ignoring = await other.generate(prompt.text, { maxNewTokens: 32, ignoreEos: true }).final();
      expect(ignoring).toMatchObject({ ids: prompt.greedy_ids, finishReason: 'length' });
    }
  });

  it('alone in a batch whose other texts go on', async () => {
    const { prompts } = readGolden('bloom-tiny');
    using folder = new ModelFolderCopy('bloom-tiny').json('generation_config.json', { eos_token_id: end });
    await using other = await InferenceEngine.load(folder.folder);
    const results = await other.generateBatch(
      prompts.map(({ text }) => text),
      { maxNewTokens: 32 },
    );
    results.forEach(({ ids, finishReason }, i) => {
      const wanted = prompts[i]!.greedy_ids;
      const place = wanted.indexOf(end);
      expect(ids).toEqual(place < 0 ? wanted : wanted.slice(0, place + 1));
      expect(finishReason).toBe(place < 0 ? 'length' : 'end');
    });
    expect(new Set(results.map(({ finishReason }) => finishReason)).size).toBe(2);
  });

  it('before a stop text, which no chunk shows', async () => {
    const stops = ['sese', 'never'];
    const stream = engine.generate(prompt.text, { maxNewTokens: 32, stop: stops });
    let streamed = '';
    for await (const { text } of stream) streamed += text;
    const { text, ids, finishReason } = await stream.final();
    expect(text).toBe(prompt.greedy_text.slice(0, prompt.greedy_text.indexOf('sese')));
    expect(streamed).toBe(text);
    expect(ids.length).toBeLessThan(32);
    expect(finishReason).toBe('stop');
  });
});

describe('a draw', () => {
  const sampling: GenerateOptions = { maxNewTokens: 24, temperature: 1.5, topP: 0.95, ignoreEos: true };

  it('comes out the same with the same seed, and in a batch with seed + i', async () => {
    const drawn = async (seed: number) => (await engine.generate(prompt.text, { ...sampling, seed }).final()).ids;
    const [a, b] = [await drawn(7), await drawn(8)];
    expect(await drawn(7)).toEqual(a);
    expect(b).not.toEqual(a);
    const batch = await engine.generateBatch([prompt.text, prompt.text], { ...sampling, seed: 7 });
    expect(batch.map(({ ids, seed }) => ({ ids, seed }))).toEqual([
      { ids: a, seed: 7 },
      { ids: b, seed: 8 },
    ]);
  });

  it('without a seed tells the one it took', async () => {
    const { ids, seed } = await engine.generate(prompt.text, sampling).final();
    const again = await engine.generate(prompt.text, { ...sampling, seed: seed! }).final();
    expect(again.ids).toEqual(ids);
  });

  it('of the most likely token alone is greedy', async () => {
    const { ids } = await engine.generate(prompt.text, { maxNewTokens: 32, topK: 1 }).final();
    expect(ids).toEqual(prompt.greedy_ids);
  });

  it('is not needed for a repetition penalty', async () => {
    const { ids, seed } = await engine.generate(prompt.text, { maxNewTokens: 32, repetitionPenalty: 50 }).final();
    expect(seed).toBeUndefined();
    expect(new Set([...prompt.input_ids, ...ids]).size).toBe(new Set(prompt.input_ids).size + ids.length);
  });
});

describe('an abort', () => {
  it('ends a stream within one token and frees the cache', async () => {
    const abort = new AbortController();
    const ids: number[] = [];
    const run = async () => {
      for await (const { id } of engine.generate(prompt.text, { maxNewTokens: 1000, signal: abort.signal })) {
        ids.push(id);
        if (ids.length === 3) abort.abort('enough');
      }
    };
    await expect(run()).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
    expect(ids).toHaveLength(3);
    expect(cacheBytes()).toBe(0);
  });

  it('ends a batch, and a stream that has not begun', async () => {
    const signal = AbortSignal.abort();
    await expect(engine.generateBatch(['a', 'b'], { signal })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(engine.generate('a', { signal }).final()).rejects.toMatchObject({ code: 'ABORTED' });
    const abort = new AbortController();
    const batch = engine.generateBatch(['a', 'b'], { maxNewTokens: 1000, ignoreEos: true, signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await expect(batch).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('comes with the end of the engine too', async () => {
    const other = await InferenceEngine.load(goldenPath('bloom-tiny'));
    const stream = other.generate(prompt.text, { maxNewTokens: 1000, ignoreEos: true });
    const tokens = stream[Symbol.asyncIterator]();
    await tokens.next();
    const batch = other.generateBatch(['a'], { maxNewTokens: 1000, ignoreEos: true });
    const ended = expect(batch).rejects.toMatchObject({ code: 'DISPOSED' });
    await new Promise((resolve) => setTimeout(resolve, 5));
    await other[Symbol.asyncDispose]();
    await ended;
    await expect(tokens.next()).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});

describe('options', () => {
  it.each<[object, RegExp]>([
    [{ maxTokens: 5 }, /the options maxNewTokens, .*, got maxTokens\. did you mean maxNewTokens\?/],
    [{ top_p: 0.5 }, /did you mean topP\?/],
    [{ maxNewTokens: 0 }, /a whole number >= 1 for maxNewTokens, got 0/],
    [{ temperature: 0 }, /a number > 0 for temperature, got 0/],
    [{ temperature: '1' }, /for temperature, got "1"/],
    [{ topP: 1.5 }, /a number in \(0, 1\] for topP, got 1.5/],
    [{ topK: -1 }, /a whole number >= 0 for topK/],
    [{ seed: 0.5 }, /seed, got 0.5/],
    [{ stop: [''] }, /none empty for stop/],
    [{ greedy: true, temperature: 0.5, seed: 1 }, /either greedy or a draw, got greedy and temperature, seed/],
    [{ signal: {} }, /an AbortSignal for signal/],
  ])('%j are refused', async (options, message) => {
    const refused = expect.objectContaining({ code: 'CONFIG', message: expect.stringMatching(message) });
    expect(() => engine.generate('a', options)).toThrow(refused);
    await expect(engine.generateBatch(['a'], options)).rejects.toEqual(refused);
  });

  it.each<[number[], RegExp]>([
    [[], /at least one token, got 0/],
    [[5, 512], /from 0 to 511, got 512 at place 1/],
    [[-1], /got -1 at place 0/],
    [[1.5], /got 1.5/],
  ])('the prompt %j is refused', async (ids, message) => {
    const refused = expect.objectContaining({ code: 'CONFIG', message: expect.stringMatching(message) });
    expect(() => engine.generate(ids)).toThrow(refused);
    await expect(engine.generateBatch([[5], ids])).rejects.toEqual(refused);
    await expect(engine.logits(ids)).rejects.toEqual(refused);
    await expect(engine.loss([5])).rejects.toMatchObject({
      message: expect.stringMatching(/at least 2 tokens, got 1/),
    });
  });

  it('do not help where a weight is NaN: an error says so', async () => {
    using folder = new ModelFolderCopy('bloom-tiny').tensors((tensors) => {
      new Float32Array(tensors.get('transformer.ln_f.bias')!.bytes.buffer)[3] = Number.NaN;
    });
    await using other = await InferenceEngine.load(folder.folder);
    for (const options of [{}, { seed: 1 }])
      await expect(other.generate('a', options).final()).rejects.toMatchObject({
        code: 'INTERNAL',
        message: expect.stringMatching(/finite/),
      });
  });
});
