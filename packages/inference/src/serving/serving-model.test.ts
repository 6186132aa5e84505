/** Serving the tiny BLOOM: tokens and logits of each request are those it gets alone, bit for bit. */
import { device, liveTensors } from '@ds/core-native';
import { goldenPath, readGolden } from '../../../../test/support/golden';
import { InferenceEngine, NgramDrafter, type RequestOptions, type ServeOptions, type TokenEvent } from '../index';

const { prompts } = readGolden('bloom-tiny');
let engine: InferenceEngine;
let idle: number;

beforeAll(async () => {
  engine = await InferenceEngine.load(goldenPath('bloom-tiny'));
  await engine.generate('a', { maxNewTokens: 1 }).final();
  idle = liveTensors();
});
afterEach(() => expect(liveTensors()).toBe(idle));
afterAll(() => engine[Symbol.asyncDispose]());

const jobs = Array.from({ length: 24 }, (_, i): { prompt: number[]; options: RequestOptions } => {
  const own = prompts[i % prompts.length]!.input_ids;
  const longer = Array.from({ length: (i * 11) % 40 }, (_, t) => 4 + ((t * t + i) % 500));
  return {
    prompt: i < prompts.length ? own : [...own, ...longer],
    options: {
      maxNewTokens: 3 + ((i * 7) % 20),
      ignoreEos: true,
      ...[{}, { seed: i, temperature: 0.8 }, { logprobs: 2 }, { n: 2, seed: i, topP: 0.9 }, { promptLogprobs: 0 }][
        i % 5
      ],
    },
  };
});

/** All that is said of the answers, to the last bit. */
async function contents(options: ServeOptions, together: boolean) {
  await using server = engine.serve(options);
  const run = async ({ prompt, options: request }: (typeof jobs)[number]) => {
    const { answers, promptLogprobs } = await server.submit(prompt, request).final();
    return { answers, promptLogprobs };
  };
  const all: Awaited<ReturnType<typeof run>>[] = [];
  if (together) all.push(...(await Promise.all(jobs.map(run))));
  else for (const job of jobs) all.push(await run(job));
  expect(server.metrics.pagesUsed).toBe(0);
  return { all, metrics: server.metrics };
}

describe('24 requests to a model at once', () => {
  let alone: Awaited<ReturnType<typeof contents>>['all'];
  beforeAll(async () => {
    ({ all: alone } = await contents({ pages: 64, prefixCache: false }, false));
  });

  it('are golden where the golden file has them', async () => {
    await using server = engine.serve({ pages: 64 });
    for (const { text, greedy_ids, greedy_text } of prompts) {
      const stream = server.submit(text, { maxNewTokens: 32 });
      const events: TokenEvent[] = [];
      for await (const event of stream) events.push(event);
      expect(events.map(({ id }) => id)).toEqual(greedy_ids);
      expect(events.map((event) => event.text).join('')).toBe(greedy_text);
    }
  });

  it.each<[string, ServeOptions]>([
    ['by default', { pages: 400 }],
    ['in pieces of 7, pages of 8', { pages: 400, pageTokens: 8, limits: { stepTokens: 7 } }],
    ['with hardly any pages', { pages: 9, limits: { stepTokens: 40 } }],
    ['with guesses', { pages: 400, drafter: new NgramDrafter({ shortest: 1 }) }],
  ])('are each as alone, bit for bit: %s', async (_, options) => {
    const { all, metrics } = await contents(options, true);
    expect(all).toEqual(alone);
    if (options.pages < 20) expect(metrics.preemptions).toBeGreaterThan(0);
    if (options.drafter) expect(metrics.acceptedTokens).toBeGreaterThan(0);
  });

  it('take the bytes that are counted, and give them back', async () => {
    const live = () => device('cpu').account().owners['key-value cache']?.live ?? 0;
    expect(live()).toBe(0);
    {
      await using server = engine.serve({ pages: 10 });
      const stream = server.submit(jobs[0]!.prompt, { maxNewTokens: 4 });
      for await (const _ of stream) {
        const { pagesUsed, pageBytesUsed } = server.metrics;
        if (pagesUsed > 0) expect((pageBytesUsed / pagesUsed) * 10).toBe(live());
        break;
      }
    }
    expect(live()).toBe(0);
  });

  it('end with an error where the model goes', async () => {
    const other = await InferenceEngine.load(goldenPath('bloom-tiny'));
    const server = other.serve({ pages: 100 });
    const stream = server.submit([5], { maxNewTokens: 1000, ignoreEos: true });
    const failed = expect(stream.final()).rejects.toMatchObject({ code: 'DISPOSED' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await other[Symbol.asyncDispose]();
    await failed;
    await server[Symbol.asyncDispose]();
  });
});
