import { Scheduler } from './scheduler';

const warmup = { type: 'WarmupLR', minLr: 0, maxLr: 1, warmupSteps: 4, warmupType: 'linear' } as const;

describe('Scheduler', () => {
  it('counts only the steps it is told of, so that a skipped step costs no learning rate', () => {
    const scheduler = new Scheduler(warmup, 1);
    const seen: number[] = [];
    for (const skipped of [false, false, true, false, false, false, false]) {
      seen.push(scheduler.lr());
      if (!skipped) scheduler.advance();
    }
    expect(seen).toEqual([0, 0, 0.25, 0.25, 0.5, 0.75, 1]);
  });

  it('goes on from its saved state exactly where the unbroken one is', () => {
    const unbroken = new Scheduler(warmup, 1);
    for (let step = 0; step < 3; step++) unbroken.advance();
    const resumed = new Scheduler(warmup, 1);
    resumed.load(JSON.parse(JSON.stringify(unbroken.state())));
    for (let step = 0; step < 5; step++) {
      expect(resumed.lr()).toBe(unbroken.lr());
      resumed.advance();
      unbroken.advance();
    }
    expect(resumed.state()).toEqual({ type: 'WarmupLR', completedSteps: 8 });
  });

  it('looks ahead without moving', () => {
    const scheduler = new Scheduler(warmup, 1);
    expect([scheduler.lr(5), scheduler.lr(), scheduler.completedSteps]).toEqual([1, 0, 0]);
  });

  it('moves beta1 against the rate in a cycle', () => {
    const momentum = { min: 0.8, max: 0.9, decayRate: 0 };
    const half = { firstSteps: 2, secondSteps: 2, firstStairs: 0, secondStairs: 0, decaySteps: 0, decayRate: 0 };
    const scheduler = new Scheduler({ type: 'OneCycle', minLr: 1, maxLr: 3, ...half, momentum }, 1);
    expect([1, 2, 3, 4, 5].map((s) => scheduler.lr(s))).toEqual([2, 3, 2, 1, 1]);
    const beta1 = [1, 2, 3, 4, 5].map((s) => scheduler.beta1(s)!);
    for (const [i, expected] of [0.85, 0.8, 0.85, 0.9, 0.9].entries()) expect(beta1[i]).toBeCloseTo(expected, 14);
  });

  it.each([-1, 1.5, Number.NaN])('refuses a state with %p completed steps', (completedSteps) => {
    const scheduler = new Scheduler(warmup, 1);
    expect(() => scheduler.load({ type: 'WarmupLR', completedSteps })).toThrow(/completedSteps to be an integer ≥ 0/);
  });
});
