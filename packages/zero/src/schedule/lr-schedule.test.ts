import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLrSchedule, megatronLr } from './lr-schedule';
import type { ScheduleConfig } from './schedule-config';

interface Case {
  readonly config: ScheduleConfig;
  readonly points: readonly (readonly [number, number])[];
  readonly beta1?: readonly (readonly [number, number])[];
}

interface MegatronCase {
  readonly peak: number;
  readonly low: number;
  readonly warmup: number;
  readonly decay: number;
  readonly style: 'cosine' | 'linear';
  readonly points: readonly (readonly [number, number])[];
  readonly from_the_public_log?: Readonly<Record<string, number>>;
}

const golden = join(__dirname, '../../../../test/golden');
const cases = JSON.parse(readFileSync(join(golden, 'lr-schedules.json'), 'utf8')).cases as readonly Case[];
const formulas = JSON.parse(readFileSync(join(golden, 'formulas.json'), 'utf8')) as Record<string, MegatronCase>;

function expectClose(actual: number, expected: number, label: string): void {
  const error = Math.abs(actual - expected) / Math.max(Math.abs(expected), 1e-9);
  if (!(error <= 1e-12)) throw new Error(`${label}: ${actual} is not ${expected}`);
}

describe('learning-rate schedules', () => {
  it.each(cases.map((one) => [JSON.stringify(one.config), one] as const))('%s gives the golden rates', (label, one) => {
    const schedule = createLrSchedule(one.config, Number.NaN);
    for (const [steps, lr] of one.points) expectClose(schedule.lr(steps), lr, `${label} lr(${steps})`);
    for (const [steps, beta1] of one.beta1 ?? []) {
      expectClose(schedule.beta1(steps)!, beta1, `${label} beta1(${steps})`);
    }
    if (one.beta1 === undefined) expect(schedule.beta1(3)).toBeNull();
  });

  /** i is DeepSpeed's counter, completed steps − 1. Worked out by hand from the rules. */
  it.each<[string, ScheduleConfig, [number, number][]]>([
    [
      'log warm-up of 10 steps to 1e-3',
      { type: 'WarmupLR', minLr: 0, maxLr: 1e-3, warmupSteps: 10, warmupType: 'log' },
      [
        [0, 0],
        [1, 1e-3 * Math.log10(2)],
        [4, 1e-3 * Math.log10(5)],
        [9, 1e-3],
        [10, 1e-3],
      ],
    ],
    [
      'linear warm-up of 10 steps and decay to step 100',
      { type: 'WarmupDecayLR', minLr: 0, maxLr: 1, warmupSteps: 10, warmupType: 'linear', totalSteps: 100 },
      [
        [0, 0],
        [5, 0.5],
        [10, 1],
        [55, 0.5],
        [99, 1 / 90],
        [100, 0],
        [120, 0],
      ],
    ],
    [
      'log warm-up of 10 steps and cosine to step 100',
      {
        type: 'WarmupCosineLR',
        peakLr: 1,
        warmupMinRatio: 0,
        cosMinRatio: 1e-4,
        warmupSteps: 10,
        warmupType: 'log',
        totalSteps: 100,
      },
      [
        [0, 0],
        [4, Math.log10(5)],
        [9, 1],
        [54, 0.50005],
        [99, 1e-4],
        [150, 1e-4],
      ],
    ],
  ])('%s has the values of its formula', (label, config, points) => {
    const schedule = createLrSchedule(config, Number.NaN);
    for (const [i, lr] of points) expectClose(schedule.lr(i + 1), lr, `${label} i=${i}`);
  });

  it('starts a cosine at lr 0 and a warm-up at its own minimum before the first step', () => {
    const warmup = { minLr: 2e-5, maxLr: 1e-3, warmupSteps: 10, warmupType: 'linear' } as const;
    expect(createLrSchedule({ type: 'WarmupLR', ...warmup }, 1).lr(0)).toBe(2e-5);
    const cosine = { peakLr: 1, warmupMinRatio: 0.3, cosMinRatio: 0.1, warmupSteps: 10, warmupType: 'linear' } as const;
    const schedule = createLrSchedule({ type: 'WarmupCosineLR', ...cosine, totalSteps: 100 }, 1);
    expect([schedule.lr(0), schedule.lr(1)]).toEqual([0, 0.3]);
  });

  it('stays constant without a schedule, and leaves beta1 alone', () => {
    const schedule = createLrSchedule(null, 3e-4);
    expect([schedule.lr(0), schedule.lr(1), schedule.lr(123_456)]).toEqual([3e-4, 3e-4, 3e-4]);
    expect(schedule.beta1(7)).toBeNull();
  });

  it.each(['lr_bloom_176b', 'lr_bloom_560m', 'lr_linear'])('anneals by samples as Megatron does: %s', (name) => {
    const { peak, low, warmup, decay, style, points } = formulas[name]!;
    const config = { peakLr: peak, minLr: low, warmupSamples: warmup, decaySamples: decay, decayStyle: style };
    for (const [samples, lr] of points) expectClose(megatronLr(config, samples), lr, `${name} at ${samples} samples`);
    const byTwo = createLrSchedule({ type: 'MegatronLR', ...config, samplesPerStep: 2 }, 1);
    for (const [samples, lr] of points) {
      if (samples % 2 === 0) expectClose(byTwo.lr(samples / 2), lr, `${name} after ${samples / 2} steps of 2`);
    }
  });

  it('reproduces four learning rates of the public training log of BLOOM-176B to their printed digits', () => {
    const { peak, low, warmup, decay, style, from_the_public_log: log } = formulas.lr_bloom_176b!;
    const config = { peakLr: peak, minLr: low, warmupSamples: warmup, decaySamples: decay, decayStyle: style };
    const entries = Object.entries(log!);
    expect(entries).toHaveLength(4);
    for (const [samples, printed] of entries) {
      expect(megatronLr(config, Number(samples)).toPrecision(4)).toBe(printed.toPrecision(4));
    }
  });

  it('keeps the peak in the constant style, and starts there without warm-up', () => {
    const config = { peakLr: 1, minLr: 0, warmupSamples: 0, decaySamples: 10, decayStyle: 'constant' } as const;
    expect([0, 5, 100].map((samples) => megatronLr(config, samples))).toEqual([1, 1, 1]);
  });
});
