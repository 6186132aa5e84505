/**
 * Learning-rate schedules as pure functions of the number of completed optimizer steps.
 *
 * DeepSpeed advances its scheduler *after* the optimizer, so the step that trains with `lr(s)` is the one that follows `s` completed steps, and
 * DeepSpeed's counter is i = s − 1. Before the first step (s = 0) DeepSpeed trains at the floor of the schedule, for the warm-up schedules with a
 * minimum of 0 therefore at lr 0, and i = 0 gives the floor once more. This is kept so that a run can be compared step by step.
 *
 * Source: DeepSpeed's schedules as described in its documentation; the cycle and the range test are from L. N. Smith, "A disciplined approach to
 * neural network hyper-parameters" (2018), sections 3 and 4; annealing by samples from Megatron-LM.
 */
import type {
  LrRangeTestConfig,
  MegatronLrConfig,
  OneCycleConfig,
  ScheduleConfig,
  WarmupCosineLrConfig,
  WarmupDecayLrConfig,
  WarmupLrConfig,
  WarmupType,
} from './schedule-config';

/** A learning rate, and where the schedule moves it the first Adam moment's β1, for every step of a run. */
export interface LrSchedule {
  readonly type: ScheduleConfig['type'] | 'constant';
  /** Gives the learning rate of the step that follows `completedSteps` completed (not skipped) ones. */
  lr(completedSteps: number): number;
  /** Gives that step's β1, or null where the schedule leaves the optimizer's own. */
  beta1(completedSteps: number): number | null;
}

/**
 * Draws a schedule.
 *
 * @param config the resolved schedule; null for none
 * @param constantLr the learning rate without a schedule; ignored when there is one, because every schedule carries its own peak
 */
export function createLrSchedule(config: ScheduleConfig | null, constantLr: number): LrSchedule {
  if (config === null) return schedule('constant', () => constantLr);
  switch (config.type) {
    case 'WarmupLR':
      return schedule(config.type, (s) => warmupLr(config, s - 1));
    case 'WarmupDecayLR':
      return schedule(config.type, (s) => warmupDecayLr(config, s - 1));
    case 'WarmupCosineLR':
      return schedule(config.type, (s) => warmupCosineLr(config, s - 1));
    case 'OneCycle':
      return schedule(
        config.type,
        (s) => oneCycleLr(config, s),
        (s) => oneCycleBeta1(config, s),
      );
    case 'LRRangeTest':
      return schedule(config.type, (s) => rangeTestLr(config, s));
    case 'MegatronLR':
      return schedule(config.type, (s) => megatronLr(config, s * config.samplesPerStep));
  }
}

function schedule(
  type: LrSchedule['type'],
  lr: (completedSteps: number) => number,
  beta1: (completedSteps: number) => number | null = () => null,
): LrSchedule {
  return Object.freeze({ type, lr, beta1 });
}

/** Gives the warm-up's share of the way, 0..1, for i in 0..W−1. W of 1 would divide by ln 1 = 0; DeepSpeed raises it to 2. */
function warmupShare(type: WarmupType, i: number, warmupSteps: number): number {
  return type === 'log' ? Math.log(i + 1) / Math.log(warmupSteps) : i / warmupSteps;
}

function warmupLr(c: WarmupLrConfig, i: number): number {
  const warmupSteps = Math.max(2, c.warmupSteps);
  if (i < 0) return c.minLr;
  const share = i < warmupSteps ? warmupShare(c.warmupType, i, warmupSteps) : 1;
  return c.minLr + (c.maxLr - c.minLr) * share;
}

function warmupDecayLr(c: WarmupDecayLrConfig, i: number): number {
  const warmupSteps = Math.max(2, c.warmupSteps);
  if (i < 0) return c.minLr;
  const share =
    i < warmupSteps
      ? warmupShare(c.warmupType, i, warmupSteps)
      : Math.max(0, (c.totalSteps - i) / Math.max(1, c.totalSteps - warmupSteps));
  return c.minLr + (c.maxLr - c.minLr) * share;
}

function warmupCosineLr(c: WarmupCosineLrConfig, i: number): number {
  const warmupSteps = Math.max(2, c.warmupSteps);
  // DeepSpeed's first step runs at 0 here, not at the warm-up's own minimum.
  if (i < 0) return 0;
  if (i < warmupSteps) {
    const share = warmupShare(c.warmupType, i, warmupSteps);
    return c.peakLr * (c.warmupMinRatio + (1 - c.warmupMinRatio) * share);
  }
  // One step ahead of the textbook cosine (i − W + 1), as in DeepSpeed: the peak itself is met at i = W − 1 only in the log shape.
  const progress = Math.min(1, (i - warmupSteps + 1) / Math.max(1, c.totalSteps - warmupSteps));
  return c.peakLr * (c.cosMinRatio + ((1 - c.cosMinRatio) * (1 + Math.cos(Math.PI * progress))) / 2);
}

/** Gives the height of the cycle, 0 at its ends and 1 at its top, after `s` completed steps. */
function cycleHeight(c: OneCycleConfig, s: number): number {
  const total = c.firstSteps + c.secondSteps;
  const position = s % total;
  const rising = position <= c.firstSteps;
  const stairs = rising ? c.firstStairs : c.secondStairs;
  // Multiplied before dividing: a stair edge is then an exact integer and floor cannot fall one stair short.
  const height = (steps: number) => (rising ? position * steps : (total - position) * steps);
  const length = rising ? c.firstSteps : c.secondSteps;
  return stairs > 0 ? Math.floor(height(stairs) / length) / stairs : height(1) / length;
}

/** Counts the steps of decay after the cycle: 0 while inside it. */
function decayStepsAfterCycle(c: OneCycleConfig, s: number): number {
  return Math.max(0, s - (c.firstSteps + c.secondSteps));
}

function oneCycleLr(c: OneCycleConfig, s: number): number {
  const after = decayStepsAfterCycle(c, s);
  if (after === 0) return c.minLr + (c.maxLr - c.minLr) * cycleHeight(c, s);
  return c.decaySteps === 0 ? c.minLr : c.minLr / (1 + (c.decayRate * after) / c.decaySteps);
}

function oneCycleBeta1(c: OneCycleConfig, s: number): number | null {
  if (c.momentum === null) return null;
  const { min, max, decayRate } = c.momentum;
  // DeepSpeed starts the very first step at the low momentum, although the cycle begins at the high one.
  if (s === 0) return min;
  const after = decayStepsAfterCycle(c, s);
  if (after === 0) return max - (max - min) * cycleHeight(c, s);
  return c.decaySteps === 0 ? max : max * (1 + (decayRate * after) / c.decaySteps);
}

function rangeTestLr(c: LrRangeTestConfig, s: number): number {
  const interval = c.staircase ? Math.floor(s / c.stepSize) : s / c.stepSize;
  return c.minLr * (1 + c.stepRate * interval);
}

/**
 * Gives the learning rate after a number of consumed samples: linear to `peakLr` over `warmupSamples`, then to `minLr` at `decaySamples`.
 *
 * Source: Megatron-LM's annealing; BLOOM's printed training log is reproduced to its four digits.
 */
export function megatronLr(config: Omit<MegatronLrConfig, 'type' | 'samplesPerStep'>, samples: number): number {
  const { peakLr, minLr, warmupSamples, decaySamples, decayStyle } = config;
  if (warmupSamples > 0 && samples <= warmupSamples) return (peakLr * samples) / warmupSamples;
  if (decayStyle === 'constant') return peakLr;
  if (samples > decaySamples) return minLr;
  const progress = (samples - warmupSamples) / (decaySamples - warmupSamples);
  const share = decayStyle === 'linear' ? 1 - progress : 0.5 * (Math.cos(Math.PI * progress) + 1);
  return minLr + share * (peakLr - minLr);
}
