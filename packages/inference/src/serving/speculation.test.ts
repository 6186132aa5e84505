/** Guesses change nothing but the number of steps: not a greedy answer, not a drawn one, not the distribution. */
import fc from 'fast-check';
import { FakeRunner } from '../../test-support/fake-runner';
import { logprobOf } from '../generation/logprobs';
import { type Drafter, type DraftRequest, NgramDrafter } from './drafter';
import { ModelDrafter } from './model-drafter';
import type { RequestOptions } from './request-options';
import { ServingEngine, type ServingOptions } from './serving-engine';

describe('a drafter by n-grams', () => {
  const propose = (tokens: number[], most = 4) => new NgramDrafter().propose([{ id: '', tokens, most }])[0];

  it('goes on as the text did after the latest of the longest equal ends', () => {
    expect(propose([1, 2, 3, 4, 5, 9, 1, 2, 3])).toEqual([4, 5, 9, 1]);
    expect(propose([1, 2, 3, 4, 5, 9, 1, 2, 3], 2)).toEqual([4, 5]);
    expect(propose([7, 1, 2, 5, 8, 1, 2, 6, 1, 2])).toEqual([6, 1, 2]);
    expect(propose([7, 1, 2, 5, 8, 1, 2, 6, 7, 1, 2])).toEqual([5, 8, 1, 2]);
    expect(propose([5, 5, 5])).toEqual([5]);
  });

  it('knows nothing where one token alone, or none, is equal', () => {
    expect(propose([1, 2, 3, 2])).toEqual([]);
    expect(propose([1])).toEqual([]);
    expect(propose([1, 1])).toEqual([]);
    expect(new NgramDrafter({ shortest: 1 }).propose([{ id: '', tokens: [1, 2, 1], most: 3 }])).toEqual([[2, 1]]);
  });

  it('finds what a plain search finds', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(2), { minLength: 1, maxLength: 40 }), (tokens) => {
        let wanted: number[] = [];
        for (let n = 2; n <= 4; n++)
          for (let end = n; end < tokens.length; end++)
            if (tokens.slice(end - n, end).join() === tokens.slice(-n).join() && n < tokens.length)
              wanted = tokens.slice(end, end + 4);
        expect(propose(tokens)).toEqual(wanted);
      }),
      { numRuns: 500 },
    );
  });
});

async function run(
  options: Partial<ServingOptions>,
  jobs: { prompt: number[]; options: RequestOptions }[],
  window = 2,
) {
  const runner = new FakeRunner({ vocabSize: 12, window, sharpness: 3 });
  await using engine = new ServingEngine({ runner, endTokenIds: [0], ...options });
  const results = await Promise.all(jobs.map((job) => engine.submit(job.prompt, job.options).final()));
  const { metrics } = engine;
  expect(metrics.pagesUsed).toBe(0);
  return { answers: results.map(({ answers }) => answers), metrics, steps: runner.steps, most: runner.mostTokens };
}

/** Guesses well, badly, too much, and nothing, in turn. */
class Oracle implements Drafter {
  readonly asked: DraftRequest[] = [];
  readonly forgotten: string[] = [];
  propose(requests: readonly DraftRequest[]): number[][] {
    this.asked.push(...requests);
    return requests.map(({ tokens, most }) => {
      const runner = new FakeRunner({ vocabSize: 12, window: 2, sharpness: 3 });
      const text = [...tokens];
      for (let i = 0; i < most; i++) {
        const logits = runner.logitsAfter(text);
        text.push(logits.indexOf(Math.max(...logits)));
      }
      const guesses = text.slice(tokens.length);
      const kind = tokens.length % 4;
      if (kind === 0) return [];
      if (kind === 1) return guesses.map((id, i) => (i === 1 ? (id + 1) % 12 : id));
      return kind === 2 ? [...guesses, 1, 2, 3] : guesses;
    });
  }
  forget(id: string): void {
    this.forgotten.push(id);
  }
  [Symbol.dispose](): void {}
}

describe('answers with guesses', () => {
  const jobs = Array.from({ length: 24 }, (_, i) => ({
    prompt: Array.from({ length: 1 + ((i * 5) % 21) }, (_, t) => (t * i) % 12),
    options: {
      maxNewTokens: 5 + ((i * 7) % 60),
      ...[{}, { seed: i, temperature: 0.7 }, { logprobs: 1 }, { seed: i, n: 2, frequencyPenalty: 0.2 }][i % 4],
      ...(i % 3 === 0 ? { ignoreEos: true } : {}),
    },
  }));

  it.each([512, 24, 3])('are those without, in steps of %i tokens', async (stepTokens) => {
    const limits = { stepTokens };
    const plain = await run({ limits }, jobs);
    for (const drafter of [new NgramDrafter({ shortest: 1 }), new Oracle()])
      for (const prefixCache of [true, false]) {
        const guessed = await run({ limits, drafter, prefixCache, draftTokens: 6 }, jobs);
        expect(guessed.answers).toEqual(plain.answers);
        expect(guessed.most).toBeLessThanOrEqual(stepTokens);
        const { acceptedTokens, draftedTokens } = guessed.metrics;
        if (stepTokens === 3) continue; // guesses are for steps with room
        expect(acceptedTokens).toBeGreaterThan(50);
        expect(draftedTokens).toBeGreaterThan(acceptedTokens);
        expect(guessed.steps).toBeLessThan(plain.steps);
      }
  });

  it('never hold more tokens than were asked for, and the drafter hears of each end', async () => {
    const drafter = new Oracle();
    const { answers } = await run({ drafter }, jobs);
    for (const { most } of drafter.asked) expect(most).toBeGreaterThan(0);
    expect(drafter.forgotten).toHaveLength(answers.flat().length);
  });

  it('one at a time take fewer steps where the text repeats itself', async () => {
    const job = { prompt: [1, 2], options: { maxNewTokens: 101, ignoreEos: true } };
    const plain = await run({}, [job]);
    const guessed = await run({ drafter: new NgramDrafter() }, [job]);
    expect(guessed.answers).toEqual(plain.answers);
    expect(plain.steps).toBe(101);
    // 144 contexts of two tokens: it walks in a circle soon, and then five tokens a step are right.
    expect(guessed.steps).toBeLessThan(50);
  });

  it('a wrong id from a drafter is an error, not an answer', async () => {
    const drafter = { propose: () => [[12]], forget() {}, [Symbol.dispose]() {} };
    await expect(run({ drafter }, [jobs[0]!])).rejects.toMatchObject({ code: 'CONFIG', op: 'draft' });
    const cause = new Error('no guess');
    const thrower: Drafter = { ...drafter, propose: () => Promise.reject(cause) };
    await expect(run({ drafter: thrower }, [jobs[0]!])).rejects.toMatchObject({ code: 'INTERNAL', cause });
  });
});

describe('a drafter by a smaller model', () => {
  const model = { vocabSize: 12, window: 2, sharpness: 3 };
  const whole = { vocabSize: 12, pageTokens: 4 };
  const jobs = Array.from({ length: 12 }, (_, i) => ({
    prompt: Array.from({ length: 1 + ((i * 5) % 21) }, (_, t) => (t * i) % 12),
    options: { maxNewTokens: 10 + i * 4, ignoreEos: true, ...(i % 3 === 0 ? { seed: i } : {}) },
  }));

  it('that is the model itself is right always, and takes a step for five tokens', async () => {
    const drafter = new ModelDrafter(new FakeRunner({ ...model, pageTokens: 4 }));
    const job = { prompt: [1, 2, 3], options: { maxNewTokens: 51, ignoreEos: true } };
    const plain = await run({}, [job]);
    const guessed = await run({ drafter }, [job]);
    expect(guessed.answers).toEqual(plain.answers);
    expect(guessed.metrics).toMatchObject({ draftedTokens: 40, acceptedTokens: 40 });
    expect([plain.steps, guessed.steps]).toEqual([51, 11]);
  });

  it.each([
    ['another model', { window: 1 }, 512],
    ['hardly any pages', { pages: 9 }, 512],
    ['steps of 5 tokens', {}, 5],
  ])('changes no answer: %s', async (_, changes, stepTokens) => {
    const runner = new FakeRunner({ ...model, pageTokens: 4, ...changes });
    const drafter = new ModelDrafter(runner, { stepTokens });
    const plain = await run({}, jobs);
    const guessed = await run({ drafter }, jobs);
    expect(guessed.answers).toEqual(plain.answers);
    expect(guessed.metrics.acceptedTokens).toBeGreaterThan(20);
    expect(runner.mostTokens).toBeLessThanOrEqual(stepTokens);
    expect([drafter.pagesUsed, runner.disposed]).toEqual([0, true]);
  });

  it('computes each token of a text once, and its guesses again only where they were wrong', async () => {
    const runner = new FakeRunner(whole);
    let computed = 0;
    const onStep = ({ ids }: { ids: Int32Array }) => {
      computed += ids.length;
    };
    const drafter = new ModelDrafter(new FakeRunner({ ...whole, onStep }));
    const text = [1, 2, 3, 4, 5, 6];
    const [guesses] = await drafter.propose([{ id: 'a', tokens: text, most: 3 }]);
    const first = runner.logitsAfter(text);
    expect(guesses![0]).toBe(first.indexOf(Math.max(...first)));
    expect(computed).toBe(6 + 2);
    // All right, and one more that the large model wrote: the last guess and that one are new.
    await drafter.propose([{ id: 'a', tokens: [...text, ...guesses!, 7], most: 1 }]);
    expect(computed).toBe(8 + 2);
    // A wrong guess, and what followed it, is read again.
    const [others] = await drafter.propose([{ id: 'b', tokens: text, most: 3 }]);
    expect(computed).toBe(10 + 8);
    const right = [...text, others![0]!, (others![1]! + 1) % 12, 5];
    const [after] = await drafter.propose([{ id: 'b', tokens: right, most: 1 }]);
    expect(computed).toBe(18 + 2);
    const second = runner.logitsAfter(right);
    expect(after).toEqual([second.indexOf(Math.max(...second))]);
    drafter.forget('a');
    drafter.forget('b');
    expect(drafter.pagesUsed).toBe(0);
  });
});

describe('draws with guesses', () => {
  it('follow the distribution: chi-square over 100,000 of them', async () => {
    // The next token depends on the last one alone: a row of counts for each.
    const V = 8;
    const runner = new FakeRunner({ vocabSize: V, window: 1, sharpness: 2, pages: 4000, pageTokens: 32 });
    const limits = { spareLogitRows: 300 };
    await using engine = new ServingEngine({ runner, limits, drafter: new NgramDrafter(), draftTokens: 2 });
    const streams = Array.from({ length: 100 }, (_, i) =>
      engine.submit([i % V], { seed: 1000 + i, maxNewTokens: 1000 }),
    );
    const counts = Array.from({ length: V }, () => new Array<number>(V).fill(0));
    for (const { promptIds, answers } of await Promise.all(streams.map((stream) => stream.final())))
      for (const [i, id] of answers[0]!.ids.entries()) counts[answers[0]!.ids[i - 1] ?? promptIds[0]!]![id]!++;
    let chiSquare = 0;
    for (const [last, row] of counts.entries()) {
      const total = row.reduce((a, b) => a + b);
      const logits = runner.logitsAfter([last]);
      for (const [id, count] of row.entries()) {
        const expected = total * Math.exp(logprobOf(logits, id, 0).logprob);
        chiSquare += (count - expected) ** 2 / expected;
      }
    }
    expect(counts.flat().reduce((a, b) => a + b)).toBe(100_000);
    // 8 rows of 7 degrees of freedom: 56, p = 0.01.
    expect(chiSquare).toBeLessThan(83.5);
    const { draftedTokens, acceptedTokens } = engine.metrics;
    expect(acceptedTokens).toBeGreaterThan(10_000);
    expect(acceptedTokens / draftedTokens).toBeLessThan(0.5);
  }, 300_000);
});
