/** What goes wrong ends what it belongs to, frees its pages at once, and nothing else notices. */
import { DsError } from '@ds/core-native';
import { dice, FakeRunner, type FakeRunnerOptions } from '../../test-support/fake-runner';
import type { StepBatch } from '../decoder/step-runner';
import type { RequestOptions } from './request-options';
import { ServingEngine, type ServingOptions } from './serving-engine';

function engineOf(options: Partial<ServingOptions> = {}, runner: FakeRunnerOptions = {}): ServingEngine {
  return new ServingEngine({ runner: new FakeRunner(runner), ...options });
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
const long = { maxNewTokens: 1000 };

async function wantedOf(prompt: number[], options: RequestOptions) {
  await using engine = engineOf();
  return (await engine.submit(prompt, options).final()).answers;
}

describe('an abort', () => {
  it.each([
    ['waiting', 0, { maxNewTokens: 5 }],
    ['while the prompt is read', 2, { maxNewTokens: 5 }],
    ['while it writes', 12, { maxNewTokens: 500 }],
    ['with three answers', 12, { maxNewTokens: 500, n: 3 }],
  ])('frees all pages at once: %s', async (_, turns, options) => {
    await using engine = engineOf({ limits: { stepTokens: 16 } });
    const abort = new AbortController();
    const stream = engine.submit(
      Array.from({ length: 100 }, (_, i) => i % 61),
      { ...options, signal: abort.signal },
    );
    for (let i = 0; i < turns; i++) await turn();
    expect(engine.metrics.pagesUsed > 0).toBe(turns > 0);
    const { steps } = engine.metrics;
    abort.abort('enough');
    expect(engine.metrics).toMatchObject({ pagesUsed: 0, running: 0, waiting: 0 });
    await expect(stream.final()).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
    const walked = async () => {
      for await (const _ of stream);
    };
    await expect(walked()).rejects.toMatchObject({ code: 'ABORTED' });
    await engine.drain();
    expect(engine.metrics.steps - steps).toBeLessThanOrEqual(1);
    expect(engine.metrics.failed).toEqual({ ABORTED: 1 });
  });

  it('in the middle of a step leaves the others as they are', async () => {
    const abort = new AbortController();
    await using engine = engineOf({}, { onStep: ({ past }) => (past[0] === 8 ? abort.abort() : undefined) });
    const ended = engine.submit([1, 2, 3], { ...long, signal: abort.signal });
    const other = engine.submit([4, 5], { maxNewTokens: 60 });
    await expect(ended.final()).rejects.toMatchObject({ code: 'ABORTED' });
    const later = engine.submit([6], { maxNewTokens: 60 });
    expect((await other.final()).answers).toEqual(await wantedOf([4, 5], { maxNewTokens: 60 }));
    expect((await later.final()).answers).toEqual(await wantedOf([6], { maxNewTokens: 60 }));
  });

  it('before the request came ends it, and listeners go with their requests', async () => {
    await using engine = engineOf();
    const done = engine.submit([1], { signal: AbortSignal.abort(), maxNewTokens: 3 });
    await expect(done.final()).rejects.toMatchObject({ code: 'ABORTED' });
    const { signal } = new AbortController();
    const removed = jest.spyOn(signal, 'removeEventListener');
    await engine.submit([1], { signal, maxNewTokens: 3 }).final();
    expect(removed).toHaveBeenCalledTimes(1);
  });

  it('is what leaving the loop does, without an error', async () => {
    await using engine = engineOf();
    const stream = engine.submit([1, 2], long);
    let taken = 0;
    for await (const _ of stream) if (++taken === 5) break;
    expect(engine.metrics.pagesUsed).toBe(0);
    const { answers } = await stream.final();
    expect(answers[0]).toMatchObject({ finishReason: 'closed' });
    expect(answers[0]!.ids.length).toBeGreaterThanOrEqual(5);
    const disposed = engine.submit([1, 2], long);
    await disposed[Symbol.asyncDispose]();
    expect((await disposed.final()).answers[0]).toMatchObject({ ids: [], finishReason: 'closed' });
    expect(engine.metrics.finished).toEqual({ length: 0, end: 0, stop: 0, closed: 2 });
  });
});

describe('a step that fails', () => {
  const failing = (wrong: number) => (batch: StepBatch) => {
    if (batch.ids.includes(wrong)) throw new Error(`cannot compute ${wrong}`);
  };

  it.each([1, 2, 7, 16])('ends the one text it belongs to, of %i', async (count) => {
    const next = (tokens: readonly number[]) => (tokens.at(-1)! % 50) + 1;
    await using engine = engineOf({}, { next, onStep: failing(55) });
    const jobs = Array.from({ length: count }, (_, i) => (i === count >> 1 ? [55, 1] : [i, 2]));
    const streams = jobs.map((prompt) => engine.submit(prompt, { maxNewTokens: 20 }));
    for (const [i, stream] of streams.entries()) {
      if (i === count >> 1)
        await expect(stream.final()).rejects.toMatchObject({
          code: 'INTERNAL',
          message: expect.stringContaining('cannot compute 55'),
          cause: expect.any(Error),
        });
      else expect((await stream.final()).answers[0]!.ids).toEqual(Array.from({ length: 20 }, (_, t) => t + 3));
    }
    expect(engine.metrics).toMatchObject({ pagesUsed: 0, failed: { INTERNAL: 1 } });
    expect((await engine.submit([9], { maxNewTokens: 2 }).final()).answers[0]!.ids).toEqual([10, 11]);
  });

  it('late ends the text with what it had, and its other answers', async () => {
    let fails = false;
    await using engine = engineOf(
      {},
      { onStep: (batch) => (fails && batch.past.length > 1 ? failing(7)(batch) : undefined) },
    );
    const stream = engine.submit([1, 2], { ...long, n: 3, seed: 1 });
    let taken = 0;
    const walk = async () => {
      for await (const { id } of stream) {
        taken++;
        if (taken > 10) fails = true;
        expect(id).toBeGreaterThanOrEqual(0);
      }
    };
    // A pair of texts with token 7 fails, each of them alone does not: nobody ends.
    const both = walk();
    for (let i = 0; i < 100; i++) await turn();
    expect(taken).toBeGreaterThan(100);
    await stream[Symbol.asyncDispose]();
    await both;
    expect(engine.metrics).toMatchObject({ pagesUsed: 0, failed: {} });
  });

  it('because the model is gone ends all at once with its error', async () => {
    let steps = 0;
    const error = new DsError({ code: 'DISPOSED', op: 'step', expected: 'a model', actual: 'none' });
    const onStep = () => {
      steps++;
      throw error;
    };
    await using engine = engineOf({}, { onStep });
    const streams = [1, 2, 3].map((id) => engine.submit([id], long).final());
    for (const stream of streams) await expect(stream).rejects.toBe(error);
    expect(steps).toBe(1);
  });

  it('by giving too few rows, or NaN, is an error of its own', async () => {
    class Short extends FakeRunner {
      override async step(batch: StepBatch) {
        const { logits } = await super.step(batch);
        if (!logits) return { argmax: new Int32Array(0) };
        return { logits: logits.fill(Number.NaN, 0, this.vocabSize) };
      }
    }
    await using engine = new ServingEngine({ runner: new Short() });
    await expect(engine.submit([1]).final()).rejects.toThrow(/1 rows of a step, got 0/);
    const [bad, good] = [engine.submit([1], { seed: 1 }), engine.submit([2], { seed: 1, maxNewTokens: 1 })];
    await expect(bad.final()).rejects.toThrow(/finite logits/);
    await expect(good.final()).resolves.toBeDefined();
  });
});

describe('a mask that throws, or allows nothing,', () => {
  it('ends its own request', async () => {
    await using engine = engineOf();
    const other = engine.submit([5], { maxNewTokens: 9 });
    const cause = new Error('no such rule');
    const thrower = (ids: readonly number[]) => {
      if (ids.length === 3) throw cause;
      return undefined;
    };
    await expect(engine.submit([1], { mask: thrower, n: 2 }).final()).rejects.toBe(cause);
    await expect(engine.submit([1], { mask: () => new Uint32Array(2) }).final()).rejects.toMatchObject({
      code: 'CONFIG',
    });
    expect((await other.final()).answers).toEqual(await wantedOf([5], { maxNewTokens: 9 }));
    expect(engine.metrics.pagesUsed).toBe(0);
  });
});

describe('limits', () => {
  it('of time end a request that waits, and one that writes', async () => {
    const slow = () => new Promise<void>((resolve) => setTimeout(resolve, 5));
    await using engine = engineOf({ limits: { sequences: 1 } }, { onStep: slow });
    const first = engine.submit([1], long);
    const waits = engine.submit([2], { ...long, timeoutMs: 30 });
    await expect(waits.final()).rejects.toMatchObject({ code: 'TIMEOUT', message: expect.stringContaining('30 ms') });
    expect(engine.metrics.running).toBe(1);
    await first[Symbol.asyncDispose]();
    await expect(engine.submit([1], { ...long, timeoutMs: 30 }).final()).rejects.toMatchObject({ code: 'TIMEOUT' });
    expect(engine.metrics).toMatchObject({ pagesUsed: 0, failed: { TIMEOUT: 2 } });
  });

  it('of the queue refuse what is too much, and only that', async () => {
    await using engine = engineOf({ limits: { sequences: 2, waiting: 3 } });
    const accepted = [1, 2, 3].map((id) => engine.submit([id], { maxNewTokens: 4 }));
    const refused = expect.objectContaining({ code: 'OVERLOADED', hint: 'try again later' });
    expect(() => engine.submit([4])).toThrow(refused);
    await Promise.all(accepted.map((stream) => stream.final()));
    await engine.submit([4], { maxNewTokens: 1 }).final();
  });

  it.each<[string, number[] | string, RequestOptions, RegExp]>([
    ['an empty prompt', [], {}, /at least one token, got 0/],
    ['an id outside the vocabulary', [61], {}, /from 0 to 60, got 61 at place 0/],
    ['a text without a tokenizer', 'text', {}, /a tokenizer for texts/],
    ['stop texts without a tokenizer', [1], { stop: 'x' }, /a tokenizer for texts/],
    ['a prompt over the context', Array(41).fill(1), {}, /at most 40 tokens, got 41 tokens/],
    ['more tokens than the context', Array(30).fill(1), { maxNewTokens: 12 }, /at most 11 behind 30 tokens.*, got 12/],
    ['more answers than places', [1], { n: 9 }, /n of at most 8/],
    ['n of 0', [1], { n: 0 }, /a whole number >= 1 for n/],
    ['a bias of no token', [1], { logitBias: { 61: 1 } }, /ids in logitBias from 0 to 60/],
    ['a stop token of none', [1], { stopTokenIds: [-1] }, /a list of token ids/],
    ['a NaN bias', [1], { logitBias: { 1: Number.NaN } }, /finite numbers by token id/],
    ['a penalty that is infinite', [1], { presencePenalty: Number.POSITIVE_INFINITY }, /a finite number/],
    ['more least tokens than most', [1], { minNewTokens: 5, maxNewTokens: 4 }, /minNewTokens of at most/],
    ['more least tokens than fit', Array(30).fill(1), { minNewTokens: 12 }, /at most 11 behind 30 tokens.*, got 12/],
    ['a wrong name', [1], { top_logprobs: 1 } as RequestOptions, /did you mean/],
  ])('refuse %s', async (_, prompt, options, message) => {
    await using engine = engineOf({ contextTokens: 40, limits: { sequences: 8 } });
    expect(() => engine.submit(prompt, options)).toThrow(
      expect.objectContaining({ code: 'CONFIG', message: expect.stringMatching(message) }),
    );
    expect(engine.metrics).toMatchObject({ waiting: 0, pagesUsed: 0, promptTokens: 0 });
  });

  it('of pages refuse what would never fit, and default to what does', async () => {
    await using engine = engineOf({}, { pages: 2, pageTokens: 4 });
    expect(() => engine.submit([1, 2, 3], { maxNewTokens: 7 })).toThrow(/maxNewTokens of at most 6/);
    expect((await engine.submit([1, 2, 3]).final()).answers[0]!.ids).toHaveLength(6);
  });

  it('of the engine are checked', () => {
    expect(() => engineOf({ limits: { stepTokens: 0 } })).toThrow(/a whole number >= 1 for stepTokens/);
    expect(() => engineOf({ limits: { tokens: 3 } as object })).toThrow(/did you mean/);
    expect(() => engineOf({ draftTokens: 0 })).toThrow(/draftTokens/);
  });
});

describe('the end of an engine', () => {
  it('by draining finishes what there is and takes no more', async () => {
    await using engine = engineOf();
    const stream = engine.submit([1], { maxNewTokens: 30 });
    const drained = engine.drain();
    expect(() => engine.submit([2])).toThrow(expect.objectContaining({ code: 'OVERLOADED' }));
    await drained;
    expect((await stream.final()).answers[0]!.ids).toHaveLength(30);
    await engine.drain();
  });

  it('by draining for too long ends the rest with an error', async () => {
    await using engine = engineOf({}, { onStep: () => new Promise((resolve) => setTimeout(resolve, 2)) });
    const stream = engine.submit([1], long);
    const failed = expect(stream.final()).rejects.toMatchObject({ code: 'ABORTED' });
    await engine.drain({ timeoutMs: 20 });
    await failed;
    expect(engine.metrics).toMatchObject({ pagesUsed: 0, running: 0 });
  });

  it('by disposal ends all, waits for the step, and frees the model', async () => {
    let inStep = false;
    const onStep = async () => {
      inStep = true;
      await turn();
      inStep = false;
    };
    const runner = new FakeRunner({ onStep });
    const engine = new ServingEngine({ runner });
    const stream = engine.submit([1], long);
    const failed = expect(stream.final()).rejects.toMatchObject({ code: 'DISPOSED' });
    while (!inStep) await turn();
    await engine[Symbol.asyncDispose]();
    await failed;
    expect([inStep, runner.disposed]).toEqual([false, true]);
    expect(() => engine.submit([1])).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    await engine[Symbol.asyncDispose]();
  });
});

describe('10,000 requests, a quarter of them aborted', () => {
  it('leak no page, and every one ends', async () => {
    const roll = dice(5);
    const limits = { stepTokens: 64, sequences: 24, waiting: 10_000 };
    await using engine = engineOf({ endTokenIds: [0], limits }, { pages: 12, pageTokens: 4, window: 3, vocabSize: 32 });
    const ends = { done: 0, aborted: 0 };
    const ask = async () => {
      const abort = new AbortController();
      const prompt = Array.from({ length: 1 + roll(20) }, () => roll(3));
      const options = { maxNewTokens: 1 + roll(12), n: roll(8) === 0 ? 3 : 1, seed: roll(1000), signal: abort.signal };
      const stream = engine.submit(prompt, options);
      let left = roll(4) === 0 ? roll(12) : Number.POSITIVE_INFINITY;
      try {
        if (left === 0) abort.abort();
        for await (const _ of stream) if (--left === 0) abort.abort();
        ends.done++;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ABORTED' });
        ends.aborted++;
      }
    };
    for (let wave = 0; wave < 100; wave++) await Promise.all(Array.from({ length: 100 }, ask));
    expect(ends.done + ends.aborted).toBe(10_000);
    expect(ends.aborted).toBeGreaterThan(500);
    const { metrics } = engine;
    expect(metrics).toMatchObject({ pagesUsed: 0, running: 0, waiting: 0, failed: { ABORTED: ends.aborted } });
    expect(metrics.preemptions).toBeGreaterThan(100);
  }, 300_000);
});
