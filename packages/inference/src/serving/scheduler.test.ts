/** The scheduler by itself: who takes part in which step, and how long anybody waits. */
import fc from 'fast-check';
import { dice, FakeRunner } from '../../test-support/fake-runner';
import { PagePool } from './page-pool';
import { PrefixCache } from './prefix-cache';
import { Request } from './request';
import { type RequestOptions, resolveRequestOptions } from './request-options';
import { defaultLimits, Scheduler, type SchedulerLimits } from './scheduler';
import { type StepEntry, stepBatch } from './step-plan';

const room = { contextTokens: 1e6, cacheTokens: 1e6, answers: 1e3 };

class Bench {
  readonly runner: FakeRunner;
  readonly pool: PagePool;
  readonly scheduler: Scheduler;
  readonly requests: Request[] = [];
  /** By request: in which step it ended. */
  readonly ends = new Map<Request, number>();
  steps = 0;

  constructor(limits: Partial<SchedulerLimits>, { pages = 1024, pageTokens = 4, prefixCache = true } = {}) {
    this.runner = new FakeRunner({ pages, pageTokens, window: 4 });
    this.pool = new PagePool({ pages });
    const cache = prefixCache ? new PrefixCache(this.pool) : undefined;
    const parts = { pool: this.pool, cache, pageTokens, vocabSize: this.runner.vocabSize };
    this.scheduler = new Scheduler({ ...parts, limits: { ...defaultLimits, ...limits } });
  }

  submit(promptIds: readonly number[], options: RequestOptions): Request {
    const resolved = resolveRequestOptions(options, { ...room, promptTokens: promptIds.length });
    const { pageTokens } = this.runner;
    const parts = { promptIds, options: resolved, endTokenIds: [], tokenizer: undefined, pageTokens, arrivedMs: 0 };
    const request = new Request({ ...parts, order: this.requests.length });
    this.scheduler.submit(request);
    this.requests.push(request);
    return request;
  }

  async step(): Promise<StepEntry[]> {
    this.steps++;
    const entries = this.scheduler.plan();
    if (entries.length === 0) return entries;
    const result = await this.runner.step(stepBatch(entries, this.runner.pageTokens));
    for (const { request, error } of this.scheduler.commit(entries, result)) {
      expect(error).toBeUndefined();
      if (request.finished && !this.ends.has(request)) this.ends.set(request, this.steps);
    }
    this.pool.verify();
    return entries;
  }
}

const ids = (count: number, by = 7) => Array.from({ length: count }, (_, i) => (i * by + 1) % 61);

describe('a step', () => {
  it('gives each text that is written its token first, then fills up with prompts, in order', async () => {
    const bench = new Bench({ stepTokens: 32 });
    const writers = [1, 2, 3].map((id) => bench.submit([id], { maxNewTokens: 200 }));
    await bench.step();
    const long = bench.submit(ids(500), { maxNewTokens: 5 });
    const other = bench.submit(ids(40, 3), { maxNewTokens: 5 });
    for (let step = 1; step <= 17; step++) {
      const entries = await bench.step();
      expect(entries.slice(0, 3).map(({ answer, count }) => [answer.request, count])).toEqual(
        writers.map((writer) => [writer, 1]),
      );
      const tokens = entries.reduce((sum, { count }) => sum + count, 0);
      expect(tokens).toBe(32);
      // 29 tokens a step of the long one: done with the 18th; nobody passes it.
      expect(entries.map(({ answer }) => answer.request)).toEqual([...writers, long]);
      expect(entries[3]!.rows).toEqual([]);
    }
    const last = await bench.step();
    expect(last.map(({ answer, count, rows }) => [answer.request, count, rows.length])).toEqual([
      ...writers.map((writer) => [writer, 1, 1]),
      [long, 500 - 17 * 29, 1],
      [other, 32 - 3 - (500 - 17 * 29), 0],
    ]);
    for (const { answers } of writers) expect(answers[0]!.sequence.ids).toHaveLength(19);
  });

  it('too small for all that are written serves the senior always and the others in turn', async () => {
    const bench = new Bench({ stepTokens: 4 });
    for (let i = 0; i < 10; i++) bench.submit([i], { maxNewTokens: 1000 });
    for (let step = 0; step < 300; step++) await bench.step();
    const written = bench.requests.map(({ answers }) => answers[0]!.sequence.ids.length);
    const running = written.slice(1).filter((count) => count > 0);
    expect(written[0]).toBe(300);
    expect(running).toHaveLength(3); // who would not fit into a step is not begun
    expect(Math.max(...running) - Math.min(...running)).toBeLessThanOrEqual(1);
    const forked = new Bench({ stepTokens: 4 });
    const { answers } = forked.submit([1], { n: 9, maxNewTokens: 1000 });
    for (let step = 0; step < 321; step++) await forked.step();
    const counts = answers.map(({ sequence }) => sequence.ids.length);
    expect(counts[0]).toBe(321);
    // Four tokens a step, of which each of the others takes one to read the prompt's for itself.
    const rest = counts.slice(1);
    expect(rest.reduce((a, b) => a + b)).toBe(8 + 3 * 320 - 8);
    expect(Math.max(...rest) - Math.min(...rest)).toBeLessThanOrEqual(2);
  });

  it('full of texts that are written keeps a place for the senior whose prompt is read', async () => {
    // Two rows of logits a step for its prompt leave room for those who came later.
    const bench = new Bench({ stepTokens: 8, spareLogitRows: 2 });
    const senior = bench.submit(ids(60), { maxNewTokens: 1, promptLogprobs: 0 });
    const crowd = bench.submit([1], { n: 8, maxNewTokens: 500, seed: 1 });
    while (!senior.finished) {
      const before = senior.answers[0]!.computed;
      await bench.step();
      expect(senior.finished || senior.answers[0]!.computed > before).toBe(true);
    }
    expect(crowd.answers).toHaveLength(8);
    expect(crowd.answers.every(({ sequence }) => sequence.ids.length > 10)).toBe(true);
  });

  it('has no more rows of logits than its limit, whoever wants them', async () => {
    const bench = new Bench({ stepTokens: 64, spareLogitRows: 3 });
    for (let i = 0; i < 4; i++) bench.submit(ids(20, i + 2), { maxNewTokens: 2, promptLogprobs: 1 });
    while (bench.scheduler.busy) {
      const entries = await bench.step();
      const rows = entries.map((entry) => entry.rows.length).reduce((a, b) => a + b);
      expect(rows).toBeLessThanOrEqual(3 + entries.length);
    }
    expect(bench.requests.map(({ promptLogprobs }) => promptLogprobs.length)).toEqual([19, 19, 19, 19]);
    expect(bench.runner.mostLogitRows).toBeLessThanOrEqual(7);
    expect(bench.steps).toBeGreaterThan((4 * 19) / 3);
  });
});

describe('waiting', () => {
  const jobs = fc.array(
    fc.tuple(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 3 })),
    {
      minLength: 1,
      maxLength: 14,
    },
  );

  it('has a bound: no more steps than a request and its seniors have tokens, even with hardly any pages', async () => {
    let preemptions = 0;
    await fc.assert(
      fc.asyncProperty(
        jobs,
        fc.constantFrom(1, 3, 8, 64),
        fc.integer({ min: 13, max: 30 }),
        fc.boolean(),
        async (list, stepTokens, pages, prefixCache) => {
          const bench = new Bench({ stepTokens, sequences: 8 }, { pages, prefixCache });
          for (const [prompt, maxNewTokens, n] of list)
            bench.submit(ids(prompt, maxNewTokens), { maxNewTokens, n, seed: 1 });
          let bound = 0;
          while (bench.scheduler.busy) {
            const entries = await bench.step();
            expect(entries.reduce((sum, { count }) => sum + count, 0)).toBeLessThanOrEqual(stepTokens);
            expect(bench.scheduler.running).toBeLessThanOrEqual(8);
          }
          for (const request of bench.requests) {
            const { n, maxNewTokens } = request.options;
            bound += n * (request.promptIds.length + maxNewTokens);
            expect(bench.ends.get(request)).toBeLessThanOrEqual(bound);
          }
          expect(bench.pool.used).toBe(0);
          preemptions += bench.scheduler.preemptions;
        },
      ),
      { numRuns: 60, seed: 11 },
    );
    expect(preemptions).toBeGreaterThan(50);
  });

  it('is in order: who came first is begun first, and the newest gives way', async () => {
    const bench = new Bench({ stepTokens: 64 }, { pages: 12 });
    const requests = [8, 8, 8, 8].map((prompt, i) => bench.submit(ids(prompt, i + 2), { maxNewTokens: 30 }));
    let before = bench.scheduler.preemptions;
    while (bench.scheduler.busy) {
      const running = requests.filter(({ answers }) => answers[0]!.state === 'running');
      await bench.step();
      if (bench.scheduler.preemptions > before) {
        const stayed = running.filter(({ answers }) => answers[0]!.state !== 'waiting');
        expect(running.slice(0, stayed.length)).toEqual(stayed);
        before = bench.scheduler.preemptions;
      }
    }
    expect(before).toBeGreaterThan(0);
    const ends = requests.map((request) => bench.ends.get(request)!);
    expect(ends).toEqual([...ends].sort((a, b) => a - b));
  });

  it('with full queues of random requests always goes on', async () => {
    const bench = new Bench({ stepTokens: 48, sequences: 16 }, { pages: 20, pageTokens: 4 });
    const roll = dice(3);
    let longest = 0;
    for (let step = 0; step < 4000; step++) {
      while (bench.scheduler.waiting < 20) bench.submit(ids(1 + roll(40), roll(9)), { maxNewTokens: 1 + roll(40) });
      const before = bench.ends.size;
      await bench.step();
      longest = bench.ends.size > before ? 0 : longest + 1;
      // A senior has at most 80 tokens to go.
      expect(longest).toBeLessThanOrEqual(80);
    }
    expect(bench.ends.size).toBeGreaterThan(300);
    expect(bench.scheduler.preemptions).toBeGreaterThan(100);
  });
});
