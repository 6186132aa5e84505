import * as fc from 'fast-check';
import { type BatchKeys, batchFixes, resolveBatch } from './batch';
import { ProblemList } from './config-error';
import { objectSource } from './json-source';

function resolve(keys: BatchKeys, world: number, smallest = false) {
  const problems = new ProblemList(objectSource(keys));
  return { batch: resolveBatch(keys, world, smallest, problems), problems: problems.all };
}

function keys(global?: number | 'auto', micro?: number | 'auto', accumulation?: number | 'auto'): BatchKeys {
  return {
    ...(global !== undefined && { train_batch_size: global }),
    ...(micro !== undefined && { train_micro_batch_size_per_gpu: micro }),
    ...(accumulation !== undefined && { gradient_accumulation_steps: accumulation }),
  };
}

describe('the batch triangle', () => {
  it.each<[string, BatchKeys, number, [number, number, number]]>([
    ['global and micro give accumulation', keys(24, 2), 3, [24, 2, 4]],
    ['global and accumulation give micro', keys(24, undefined, 4), 3, [24, 2, 4]],
    ['micro and accumulation give global', keys(undefined, 2, 4), 3, [24, 2, 4]],
    ['all three may be given', keys(24, 2, 4), 3, [24, 2, 4]],
    ['global alone means no accumulation', keys(24), 3, [24, 8, 1]],
    ['micro alone means no accumulation', keys(undefined, 8), 3, [24, 8, 1]],
    ['"auto" counts as not given', keys('auto', 2, 4), 3, [24, 2, 4]],
    ['"auto" for two counts as not given', keys(24, 'auto', 'auto'), 3, [24, 8, 1]],
    ['"auto" for all takes one sample a rank', keys('auto', 'auto', 'auto'), 3, [3, 1, 1]],
    ['"auto" beside accumulation takes one sample a rank', keys('auto', 'auto', 5), 3, [15, 1, 5]],
  ])('%s', (_, given, world, [global, micro, accumulation]) => {
    expect(resolve(given, world)).toEqual({ batch: { global, micro, accumulation }, problems: [] });
  });

  it('takes one sample a rank where a plan needs no batch', () => {
    expect(resolve({}, 4, true).batch).toEqual({ global: 4, micro: 1, accumulation: 1 });
  });

  it('prints the equation with its numbers and three ways out', () => {
    const { problems } = resolve(keys(32, 4, 2), 3);
    expect(problems).toHaveLength(1);
    expect(problems[0]!.message).toBe(
      'config train_batch_size: expected train_batch_size = train_micro_batch_size_per_gpu × gradient_accumulation_steps × ranks, ' +
        'got 32 ≠ 4 × 2 × 3 ranks = 24. Any one of these fixes it: (1) "train_batch_size": 24; (2) 4 ranks; ' +
        '(3) "train_batch_size": 48 with "gradient_accumulation_steps": 4.',
    );
  });

  it('resolves to a whole product or has two or three ways out that all hold, keeping every other number', () => {
    const side = fc.integer({ min: 1, max: 40 });
    const maybe = fc.option(side, { nil: undefined });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        maybe,
        maybe,
        fc.integer({ min: 1, max: 9 }),
        (global, micro, steps, world) => {
          const { batch, problems } = resolve(keys(global, micro, steps), world);
          if (batch !== null) {
            expect(batch.micro * batch.accumulation * world).toBe(batch.global);
            expect(batch.global).toBe(global);
            if (micro !== undefined) expect(batch.micro).toBe(micro);
            if (steps !== undefined) expect(batch.accumulation).toBe(steps);
            expect(problems).toEqual([]);
            return;
          }
          const fixes = batchFixes({ global, micro: micro ?? null, accumulation: steps ?? null }, world);
          expect(problems).toHaveLength(1);
          expect(fixes.length).toBeGreaterThanOrEqual(2);
          for (const fix of fixes) {
            expect(problems[0]!.message).toContain(fix.text);
            expect(resolve(fix.keys, fix.world).problems).toEqual([]);
          }
        },
      ),
      { seed: 42, numRuns: 2000 },
    );
  });
});
