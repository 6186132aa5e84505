/** Answers do not depend on neighbours, arrivals, pieces, pages, caches or preemption: each is what it would be alone. */
import { dice, FakeRunner, type FakeRunnerOptions } from '../../test-support/fake-runner';
import type { ServedResult } from './answer-stream';
import type { TokenEvent } from './request';
import type { RequestOptions } from './request-options';
import type { SchedulerLimits } from './scheduler';
import { ServingEngine, type ServingOptions } from './serving-engine';

interface Job {
  prompt: number[];
  options: RequestOptions;
}

function randomJobs(count: number, seed: number): Job[] {
  const roll = dice(seed);
  const shared = Array.from({ length: 40 }, () => roll(61));
  return Array.from({ length: count }, (_, i) => {
    const own = Array.from({ length: 1 + roll(50) }, () => roll(61));
    const options: RequestOptions = { maxNewTokens: 1 + roll(40) };
    const kind = roll(6);
    if (kind === 1) Object.assign(options, { temperature: 0.5 + roll(10) / 10, topP: 0.9, seed: i });
    if (kind === 2) Object.assign(options, { seed: i, minP: 0.05, presencePenalty: 1, n: 3 });
    if (kind === 3) Object.assign(options, { logprobs: 2, repetitionPenalty: 1.3 });
    if (kind === 4) Object.assign(options, { promptLogprobs: 1, echo: true, ignoreEos: true });
    if (kind === 5) Object.assign(options, { n: 2, minNewTokens: 1, stopTokenIds: [3, 4], topK: 5, seed: i });
    return { prompt: roll(2) ? [...shared.slice(0, roll(41)), ...own] : own, options };
  });
}

/** What does not tell of time or caches. */
function contentOf({ promptIds, promptLogprobs, answers }: ServedResult) {
  return { promptIds, promptLogprobs, answers };
}

async function alone({ prompt, options }: Job, runner: FakeRunnerOptions = {}) {
  await using engine = new ServingEngine({ runner: new FakeRunner(runner), endTokenIds: [0], prefixCache: false });
  return contentOf(await engine.submit(prompt, options).final());
}

/** Runs jobs together; some arrive while others are under way. */
async function together(
  jobs: readonly Job[],
  runner: FakeRunner,
  options: Partial<ServingOptions> = {},
  arrivals: (below: number) => number = dice(99),
) {
  await using engine = new ServingEngine({ runner, endTokenIds: [0], ...options });
  const results: Promise<ServedResult>[] = [];
  for (const job of jobs) {
    for (let turns = arrivals(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
    results.push(engine.submit(job.prompt, job.options).final());
  }
  const contents = (await Promise.all(results)).map(contentOf);
  const { metrics } = engine;
  expect(metrics).toMatchObject({ pagesUsed: 0, running: 0, waiting: 0 });
  return { contents, metrics };
}

describe('64 requests at once', () => {
  const jobs = randomJobs(64, 1);
  let wanted: Awaited<ReturnType<typeof alone>>[];

  beforeAll(async () => {
    wanted = await Promise.all(jobs.map((job) => alone(job)));
  });

  it('are greedy ones that the model itself would write', () => {
    const runner = new FakeRunner();
    const plain = jobs.filter(({ options }) => Object.keys(options).length === 1);
    expect(plain.length).toBeGreaterThan(5);
    for (const job of plain) {
      const tokens = [...job.prompt];
      while (
        tokens.length < job.prompt.length + job.options.maxNewTokens! &&
        (tokens.at(-1) !== 0 || tokens.length === job.prompt.length)
      ) {
        const logits = runner.logitsAfter(tokens);
        tokens.push(logits.indexOf(Math.max(...logits)));
      }
      expect(wanted[jobs.indexOf(job)]!.answers[0]!.ids).toEqual(tokens.slice(job.prompt.length));
    }
  });

  it.each([
    ['pieces of 1', 1, 16, 4096],
    ['pieces of 16', 16, 16, 4096],
    ['pieces of 64', 64, 16, 4096],
    ['pieces of 512', 512, 16, 4096],
    ['pages of 8', 64, 8, 4096],
    ['pages of 32', 64, 32, 4096],
    ['hardly any pages', 64, 16, 9],
    ['hardly any pages, pieces of 7', 7, 16, 9],
    ['pages of 1', 33, 1, 140],
  ])('are each as alone: %s', async (_, stepTokens, pageTokens, pages) => {
    for (const prefixCache of [true, false]) {
      const runner = new FakeRunner({ pageTokens, pages });
      const limits: Partial<SchedulerLimits> = { stepTokens, spareLogitRows: 5 };
      const { contents, metrics } = await together(jobs, runner, { limits, prefixCache });
      expect(contents).toEqual(wanted);
      expect(runner.mostTokens).toBeLessThanOrEqual(stepTokens);
      expect(metrics.prefixHits > 0).toBe(prefixCache);
      expect(metrics.preemptions > 0).toBe(pages < 4096);
      expect(metrics.newTokens).toBe(
        wanted.flatMap(({ answers }) => answers.map(({ ids }) => ids.length)).reduce((a, b) => a + b),
      );
    }
  });

  it('stay within the places for answers and rows of logits', async () => {
    const runner = new FakeRunner();
    const limits: Partial<SchedulerLimits> = { sequences: 5, spareLogitRows: 2 };
    expect((await together(jobs, runner, { limits }, () => 0)).contents).toEqual(wanted);
    expect(runner.mostTexts).toBe(5);
    expect(runner.mostLogitRows).toBeLessThanOrEqual(7);
  });

  it('need logits only where somebody asks for more than the most likely token', async () => {
    const greedy = jobs.map(({ prompt, options }) => ({ prompt, options: { maxNewTokens: options.maxNewTokens! } }));
    const runner = new FakeRunner();
    await together(greedy, runner);
    expect(runner.wants.logits).toBe(0);
    const drawing = new FakeRunner();
    await together([{ prompt: [5], options: { seed: 1, maxNewTokens: 3, ignoreEos: true } }], drawing);
    expect(drawing.wants).toEqual({ argmax: 0, logits: 3 });
  });
});

describe('a prefix that is known', () => {
  it('is not computed again, and the answer is the same; a salt keeps it apart', async () => {
    const prompt = Array.from({ length: 50 }, (_, i) => i + 1);
    const runner = new FakeRunner();
    await using engine = new ServingEngine({ runner });
    const ask = (options: RequestOptions = {}) => engine.submit(prompt, { maxNewTokens: 20, ...options }).final();
    const miss = await ask();
    expect(miss.cachedTokens).toBe(0);
    const before = engine.metrics.computedTokens;
    expect(before).toBe(50 + 19);
    const hit = await ask();
    expect(hit.cachedTokens).toBe(48);
    expect(engine.metrics.computedTokens - before).toBe(2 + 19);
    expect(hit.answers).toEqual(miss.answers);
    expect((await ask({ cacheSalt: 'mine' })).cachedTokens).toBe(0);
    expect((await ask({ cacheSalt: 'mine' })).cachedTokens).toBe(48);
    expect(engine.metrics).toMatchObject({ prefixQueries: 200, prefixHits: 96 });
    // What was written is known, too, as far as it was computed.
    const longer = await engine.submit([...prompt, ...miss.answers[0]!.ids], { maxNewTokens: 2 }).final();
    expect(longer.cachedTokens).toBe(64);
    // The last token of an answer is never computed, though it may fill a page.
    const fills = await engine.submit(prompt.slice(0, 40), { maxNewTokens: 8 }).final();
    const behind = [...prompt.slice(0, 40), ...fills.answers[0]!.ids, 5];
    const following = await engine.submit(behind, { maxNewTokens: 8 }).final();
    expect(following.cachedTokens).toBe(32);
    expect(following.answers).toEqual(
      (await alone({ prompt: behind, options: { maxNewTokens: 8, ignoreEos: true } })).answers,
    );
  });

  it('is lost from its end: the beginning is known for longest', async () => {
    await using engine = new ServingEngine({ runner: new FakeRunner({ pages: 8, pageTokens: 4 }) });
    const prompt = Array.from({ length: 29 }, (_, i) => i);
    const ask = async (ids: number[]) => (await engine.submit(ids, { maxNewTokens: 1 }).final()).cachedTokens;
    expect(await ask(prompt)).toBe(0);
    expect(await ask([50, 51, 52, 53, 54, 55, 56, 57, 58])).toBe(0); // the one page without content, and two others
    expect(await ask(prompt)).toBe(20);
  });

  it('of whole pages leaves a token to compute', async () => {
    await using engine = new ServingEngine({ runner: new FakeRunner() });
    const prompt = Array.from({ length: 32 }, (_, i) => i);
    const [a, b] = [await engine.submit(prompt).final(), await engine.submit(prompt).final()];
    expect([a.cachedTokens, b.cachedTokens]).toEqual([0, 16]);
    expect(b.answers).toEqual(a.answers);
  });
});

describe('prompts of edge sizes', () => {
  it.each([1, 15, 16, 17, 31, 32, 33])('of %i tokens', async (length) => {
    const prompt = Array.from({ length }, (_, i) => (i * 7) % 61);
    const runner = new FakeRunner({ pages: 3 });
    const most = 49 - length;
    const result = await alone({ prompt, options: { maxNewTokens: most, ignoreEos: true } }, { pages: 3 });
    expect(result.answers[0]!.ids).toHaveLength(most);
    const tokens = [...prompt, ...result.answers[0]!.ids];
    for (let i = length; i < tokens.length; i++) {
      const logits = runner.logitsAfter(tokens.slice(0, i));
      expect(tokens[i]).toBe(logits.indexOf(Math.max(...logits)));
    }
  });
});

describe('several answers', () => {
  it('share the pages of the prompt, draw with seed + i, and are those of single requests', async () => {
    const prompt = Array.from({ length: 40 }, (_, i) => i);
    let mostUsed = 0;
    const engine: ServingEngine = new ServingEngine({
      runner: new FakeRunner({
        onStep: () => {
          mostUsed = Math.max(mostUsed, engine.metrics.pagesUsed);
        },
      }),
      prefixCache: false,
    });
    await using _ = engine;
    const options = { maxNewTokens: 8, temperature: 1.2, seed: 7, ignoreEos: true };
    const { answers } = await engine.submit(prompt, { ...options, n: 3 }).final();
    expect(answers.map(({ seed }) => seed)).toEqual([7, 8, 9]);
    expect(new Set(answers.map(({ ids }) => ids.join())).size).toBe(3);
    // Two full pages for all, and one for each.
    expect(mostUsed).toBe(2 + 3);
    expect(engine.metrics.computedTokens).toBe(40 + 7 + 2 * (8 + 7));
    for (const [i, answer] of answers.entries())
      expect((await alone({ prompt, options: { ...options, seed: 7 + i } })).answers[0]!.ids).toEqual(answer.ids);
  });

  it('stream with their numbers, each in order', async () => {
    await using engine = new ServingEngine({ runner: new FakeRunner() });
    const stream = engine.submit([1, 2, 3], { n: 3, maxNewTokens: 5, seed: 1 });
    const events: TokenEvent[] = [];
    for await (const event of stream) events.push(event);
    const { answers } = await stream.final();
    for (const { index, ids, finishReason } of answers) {
      const own = events.filter((event) => event.index === index);
      expect(own.map(({ id }) => id)).toEqual(ids);
      expect(own.map((event) => event.finishReason)).toEqual([...ids.slice(1).map(() => undefined), finishReason]);
    }
  });
});

describe('probabilities', () => {
  it('are those of the model, of new tokens and of the prompt, whatever changes the draw', async () => {
    const prompt = [3, 1, 4, 1, 5];
    const runner = new FakeRunner();
    const options: RequestOptions = {
      logprobs: 3,
      promptLogprobs: 1,
      echo: true,
      seed: 3,
      temperature: 2,
      maxNewTokens: 6,
    };
    await using engine = new ServingEngine({ runner });
    const stream = engine.submit(prompt, options);
    const events: TokenEvent[] = [];
    for await (const event of stream) events.push(event);
    expect(events.map(({ fromPrompt }) => fromPrompt ?? false)).toEqual([
      ...prompt.map(() => true),
      ...Array(6).fill(false),
    ]);
    const tokens = events.map(({ id }) => id);
    expect(tokens.slice(0, 5)).toEqual(prompt);
    expect(events[0]!.logprob).toBeUndefined();
    for (const [i, event] of events.entries()) {
      if (i === 0) continue;
      const logits = runner.logitsAfter(tokens.slice(0, i));
      const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
      expect(event.logprob).toBeCloseTo(logits[event.id]! - Math.log(total), 9);
      expect(event.top).toHaveLength(i < 5 ? 1 : 3);
      expect(event.top![0]!.id).toBe(logits.indexOf(Math.max(...logits)));
    }
    const { answers, promptLogprobs } = await stream.final();
    expect(answers[0]!.logprobs!.map(({ logprob }) => logprob)).toEqual(events.slice(5).map(({ logprob }) => logprob));
    expect(promptLogprobs!.map(({ id }) => id)).toEqual(prompt.slice(1));
  });
});

describe('a mask', () => {
  it('leaves only what it allows, for each answer by its own tokens', async () => {
    await using engine = new ServingEngine({ runner: new FakeRunner() });
    const seen: number[][] = [];
    const mask = (ids: readonly number[]) => {
      seen.push([...ids]);
      return ids.length % 2 === 0 ? Uint32Array.of(0b1100) : undefined;
    };
    const { answers } = await engine.submit([9], { mask, maxNewTokens: 6, seed: 1, n: 2 }).final();
    for (const { ids } of answers) {
      ids.forEach((id, i) => {
        if (i % 2 === 0) expect([2, 3]).toContain(id);
      });
      for (let i = 0; i < 6; i++) expect(seen).toContainEqual(ids.slice(0, i));
    }
  });
});
