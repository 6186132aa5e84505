/** Reads the `scheduler` section: which parameters each type takes, DeepSpeed's defaults, and where the peak comes from. */
import * as z from 'zod/mini';
import type { ScheduleConfig, WarmupType } from '../schedule/schedule-config';
import { checkSchema } from './check-schema';
import { formatValue, type ProblemList } from './config-error';
import { unbuiltSchedulers } from './deepspeed-keys';
import { nearestName } from './nearest-name';
import { flag, integer, integerOrAuto, number, numberOrAuto, oneOf } from './schema-leaves';

const lastBatchIteration = oneOf(
  'A fresh schedule. Default -1; a resumed run takes its place from the checkpoint.',
  [-1],
);

const warmup = {
  warmup_num_steps: integer('Steps of warm-up. Default 1000.', { min: 1 }),
  warmup_type: oneOf('Shape of the warm-up. Default "log".', ['log', 'linear']),
  last_batch_iteration: lastBatchIteration,
};

const warmupRates = {
  warmup_min_lr: numberOrAuto('Learning rate the warm-up starts from. Default 0.', { min: 0 }),
  warmup_max_lr: numberOrAuto(
    'Learning rate the warm-up ends at. Default ("auto"): optimizer.params.lr, for WarmupDecayLR too, where DeepSpeed takes 1e-3 whatever the ' +
      'optimizer says.',
    { min: 0 },
  ),
};

const totalSteps = integerOrAuto('Steps of the whole schedule. Default ("auto"): the steps of the run.', { min: 1 });

const shapes = {
  WarmupLR: { ...warmup, ...warmupRates },
  WarmupDecayLR: { ...warmup, ...warmupRates, total_num_steps: totalSteps },
  WarmupCosineLR: {
    ...warmup,
    total_num_steps: totalSteps,
    warmup_min_ratio: number('Share of the peak the warm-up starts from. Default 0.', { min: 0, max: 1 }),
    cos_min_ratio: number('Share of the peak the cosine ends at. Default 1e-4.', { min: 0, max: 1 }),
  },
  OneCycle: {
    cycle_min_lr: number('Learning rate at both ends of the cycle.', { min: 0 }),
    cycle_max_lr: number('Learning rate at the top of the cycle.', { min: 0 }),
    decay_lr_rate: number('Decay per decay_step_size after the cycle. Default 0.', { min: 0 }),
    cycle_first_step_size: integer('Steps of the rise. Default 2000.', { min: 1 }),
    cycle_second_step_size: integer('Steps of the fall. Default: those of the rise.', { min: 1 }),
    cycle_first_stair_count: integer('Stairs of the rise; 0 is a slope. Default 0.', { min: 0 }),
    cycle_second_stair_count: integer('Stairs of the fall. Default: those of the rise.', { min: 0 }),
    decay_step_size: integer('Steps per unit of decay; 0 means none. Default 0.', { min: 0 }),
    cycle_momentum: flag('Move β1 against the learning rate. Default true. β2 stays, where DeepSpeed sets it to 0.99.'),
    cycle_min_mom: number('Lowest β1. Default 0.8.', { min: 0, below: 1 }),
    cycle_max_mom: number('Highest β1. Default 0.9.', { min: 0, below: 1 }),
    decay_mom_rate: number('Growth of β1 per decay_step_size after the cycle. Default 0.', { min: 0 }),
    last_batch_iteration: lastBatchIteration,
  },
  LRRangeTest: {
    lr_range_test_min_lr: number('First learning rate. Default 1e-3.', { min: 0 }),
    lr_range_test_step_size: integer('Steps per increase. Default 2000.', { min: 1 }),
    lr_range_test_step_rate: number('Increase as a multiple of the first rate. Default 1.', { min: 0 }),
    lr_range_test_staircase: flag('Increase in stairs. Default false.'),
    last_batch_iteration: lastBatchIteration,
  },
  MegatronLR: {
    min_lr: number('Learning rate from decay_samples on. Default 0.', { min: 0 }),
    warmup_samples: integer('Samples of linear warm-up. Default 0.', { min: 0 }),
    decay_samples: integerOrAuto('Samples until min_lr, warm-up included. Default ("auto"): those of the run.', {
      min: 1,
    }),
    decay_style: oneOf('How the rate falls. Default "cosine".', ['cosine', 'linear', 'constant']),
  },
} as const;

type SchedulerName = keyof typeof shapes;

const names = Object.keys(shapes) as SchedulerName[];

function paramsSchema<N extends SchedulerName>(name: N) {
  const error: z.core.$ZodErrorMap = (issue) => (issue.code === 'unrecognized_keys' ? undefined : 'an object');
  return z.strictObject(shapes[name], { error });
}

/** What the section needs to know of the rest of the run. */
export interface SchedulerContext {
  /** optimizer.params.lr as the file gives it; undefined when it does not. */
  readonly optimizerLr: number | undefined;
  /** Whether that key already has a problem, so that its absence is not a second one. */
  readonly optimizerFaulty: boolean;
  /** Optimizer steps of the run; null where nobody has said. */
  readonly totalSteps: number | null;
  /** Samples per optimizer step; null where the batch is faulty. */
  readonly globalBatch: number | null;
  readonly notes: string[];
}

interface RawScheduler {
  readonly type?: string | undefined;
  readonly params?: Record<string, unknown> | undefined;
}

/** Resolves the section; null when it is absent or faulty. `problems` looks into it. */
export function resolveScheduler(
  raw: RawScheduler | undefined,
  context: SchedulerContext,
  problems: ProblemList,
): ScheduleConfig | null {
  if (raw === undefined) return null;
  const name = resolveName(raw.type, problems);
  if (name === null) return null;
  const inside = problems.inside('params');
  const read = <N extends SchedulerName>(of: N) => {
    const known = { of: 'scheduler.params', keys: { '': Object.keys(shapes[of]) }, refused: [] };
    return checkSchema(paramsSchema(of), raw.params ?? {}, known, inside);
  };
  const rules = new SchedulerRules(name, context, inside);
  switch (name) {
    case 'WarmupLR':
      return rules.warmup(read(name));
    case 'WarmupDecayLR':
      return rules.warmupDecay(read(name));
    case 'WarmupCosineLR':
      return rules.warmupCosine(read(name));
    case 'OneCycle':
      return rules.oneCycle(read(name));
    case 'LRRangeTest':
      return rules.rangeTest(read(name));
    case 'MegatronLR':
      return rules.megatron(read(name));
  }
}

function resolveName(type: string | undefined, problems: ProblemList): SchedulerName | null {
  const expected = `one of ${names.join(', ')}`;
  if (type === undefined) {
    if (problems.touches('type')) return null;
    problems.add(['type'], {
      kind: 'missing',
      expected,
      found: 'nothing',
      hint: 'Add "type": "WarmupLR".',
    });
    return null;
  }
  const name = names.find((known) => known === type);
  if (name !== undefined) return name;
  const found = formatValue(type);
  if (unbuiltSchedulers.includes(type)) {
    const hint = "PyTorch scheduler that DeepSpeed takes by name, not built yet. Use one of DeepSpeed's own.";
    problems.add(['type'], { kind: 'not-built', expected, found, hint, at: 'value' });
    return null;
  }
  const nearest = nearestName(type, names);
  const hint = nearest === null ? 'Choose one of them.' : `Did you mean "${nearest}"?`;
  problems.add(['type'], { kind: 'value', expected, found, nearest, hint });
  return null;
}

type Params<N extends SchedulerName> = z.output<ReturnType<typeof paramsSchema<N>>>;

/** Defaults and cross-checks of each type. A method gives null when it noted a problem. */
class SchedulerRules {
  readonly #name: SchedulerName;
  readonly #context: SchedulerContext;
  readonly #problems: ProblemList;

  constructor(name: SchedulerName, context: SchedulerContext, problems: ProblemList) {
    this.#name = name;
    this.#context = context;
    this.#problems = problems;
  }

  warmup(p: Params<'WarmupLR'>): ScheduleConfig | null {
    const rates = this.#warmupRates(p);
    if (rates === null) return null;
    return { type: 'WarmupLR', ...rates, ...this.#warmupShape(p) };
  }

  warmupDecay(p: Params<'WarmupDecayLR'>): ScheduleConfig | null {
    const rates = this.#warmupRates(p);
    const total = this.#totalSteps(p.total_num_steps, p.warmup_num_steps);
    if (rates === null || total === null) return null;
    return { type: 'WarmupDecayLR', ...rates, ...this.#warmupShape(p), totalSteps: total };
  }

  warmupCosine(p: Params<'WarmupCosineLR'>): ScheduleConfig | null {
    const peakLr = this.#peakFromOptimizer();
    const total = this.#totalSteps(p.total_num_steps, p.warmup_num_steps);
    if (peakLr === null || total === null) return null;
    const { warmup_min_ratio: warmupMinRatio = 0, cos_min_ratio: cosMinRatio = 1e-4 } = p;
    return { type: 'WarmupCosineLR', peakLr, warmupMinRatio, cosMinRatio, ...this.#warmupShape(p), totalSteps: total };
  }

  oneCycle(p: Params<'OneCycle'>): ScheduleConfig | null {
    const minLr = this.#required('cycle_min_lr', p.cycle_min_lr);
    const maxLr = this.#required('cycle_max_lr', p.cycle_max_lr);
    if (minLr === null || maxLr === null) return null;
    if (!this.#ordered('cycle_min_lr', minLr, 'cycle_max_lr', maxLr)) return null;
    const { cycle_min_mom: min = 0.8, cycle_max_mom: max = 0.9, decay_mom_rate: decayRate = 0 } = p;
    if (!this.#ordered('cycle_min_mom', min, 'cycle_max_mom', max)) return null;
    this.#noteOptimizerLr(`it runs between ${minLr} and ${maxLr}`, maxLr);
    const { cycle_first_step_size: firstSteps = 2000, cycle_first_stair_count: firstStairs = 0 } = p;
    return {
      type: 'OneCycle',
      minLr,
      maxLr,
      firstSteps,
      secondSteps: p.cycle_second_step_size ?? firstSteps,
      firstStairs,
      secondStairs: p.cycle_second_stair_count ?? firstStairs,
      decaySteps: p.decay_step_size ?? 0,
      decayRate: p.decay_lr_rate ?? 0,
      momentum: p.cycle_momentum === false ? null : { min, max, decayRate },
    };
  }

  rangeTest(p: Params<'LRRangeTest'>): ScheduleConfig {
    const minLr = p.lr_range_test_min_lr ?? 1e-3;
    this.#noteOptimizerLr(`it starts at ${minLr}`, minLr);
    return {
      type: 'LRRangeTest',
      minLr,
      stepSize: p.lr_range_test_step_size ?? 2000,
      stepRate: p.lr_range_test_step_rate ?? 1,
      staircase: p.lr_range_test_staircase ?? false,
    };
  }

  megatron(p: Params<'MegatronLR'>): ScheduleConfig | null {
    const { totalSteps: steps, globalBatch } = this.#context;
    const peakLr = this.#peakFromOptimizer();
    const { min_lr: minLr = 0, warmup_samples: warmupSamples = 0, decay_style: decayStyle = 'cosine' } = p;
    const ofRun = steps === null || globalBatch === null ? null : steps * globalBatch;
    const decaySamples = typeof p.decay_samples === 'number' ? p.decay_samples : ofRun;
    if (decaySamples === null && globalBatch !== null && !this.#problems.touches('decay_samples')) {
      this.#addMissing('decay_samples', 'the samples until min_lr', 'Add "decay_samples", or the steps of the run.');
    }
    if (peakLr === null || decaySamples === null || globalBatch === null) return null;
    if (minLr > peakLr) {
      this.#addOrder('min_lr', minLr, 'optimizer.params.lr', peakLr);
      return null;
    }
    if (warmupSamples >= decaySamples) {
      this.#problems.add(['warmup_samples'], {
        kind: 'conflict',
        expected: `warmup_samples < decay_samples = ${decaySamples}`,
        found: String(warmupSamples),
        hint: 'Shorten the warm-up or lengthen the decay.',
      });
      return null;
    }
    return { type: 'MegatronLR', peakLr, minLr, warmupSamples, decaySamples, decayStyle, samplesPerStep: globalBatch };
  }

  #warmupShape(p: { warmup_num_steps?: number | undefined; warmup_type?: WarmupType | undefined }) {
    const warmupSteps = p.warmup_num_steps ?? defaultWarmupSteps;
    const { totalSteps: steps, notes } = this.#context;
    if (steps !== null && warmupSteps >= steps) {
      notes.push(
        `The run ends after ${steps} steps, inside the warm-up of ${warmupSteps} steps: the peak learning rate is never reached.`,
      );
    }
    return { warmupSteps, warmupType: p.warmup_type ?? 'log' } as const;
  }

  #warmupRates(p: { warmup_min_lr?: number | 'auto' | undefined; warmup_max_lr?: number | 'auto' | undefined }) {
    const minLr = typeof p.warmup_min_lr === 'number' ? p.warmup_min_lr : 0;
    const given = typeof p.warmup_max_lr === 'number' ? p.warmup_max_lr : null;
    const maxLr = given ?? this.#peakFromOptimizer();
    if (maxLr === null) return null;
    if (given !== null) this.#noteOptimizerLr(`its peak is warmup_max_lr = ${given}`, given);
    return this.#ordered('warmup_min_lr', minLr, 'warmup_max_lr', maxLr) ? { minLr, maxLr } : null;
  }

  /** Gives optimizer.params.lr, which must be written: a schedule whose peak nobody chose is a mistake. */
  #peakFromOptimizer(): number | null {
    const { optimizerLr, optimizerFaulty } = this.#context;
    if (optimizerLr !== undefined) return optimizerLr;
    if (optimizerFaulty) return null;
    const own = this.#name === 'WarmupLR' || this.#name === 'WarmupDecayLR' ? ' or add "warmup_max_lr" here' : '';
    this.#addMissing('', `a peak learning rate for ${this.#name}`, `Add optimizer.params.lr${own}.`);
    return null;
  }

  #totalSteps(total: number | 'auto' | undefined, warmupGiven: number | undefined): number | null {
    const resolved = typeof total === 'number' ? total : this.#context.totalSteps;
    if (resolved === null) {
      if (!this.#problems.touches('total_num_steps')) {
        this.#addMissing(
          'total_num_steps',
          'the steps of the whole schedule',
          'Add "total_num_steps", or the steps of the run.',
        );
      }
      return null;
    }
    const warmupSteps = warmupGiven ?? defaultWarmupSteps;
    if (warmupSteps <= resolved || this.#problems.touches('warmup_num_steps')) return resolved;
    const ofRun = typeof total === 'number' ? '' : ', the steps of the run';
    this.#problems.add(warmupGiven === undefined ? [] : ['warmup_num_steps'], {
      kind: 'conflict',
      expected: `warmup_num_steps ≤ total_num_steps = ${resolved}${ofRun}`,
      found: warmupGiven === undefined ? `the default ${defaultWarmupSteps}` : String(warmupGiven),
      hint: `Write "warmup_num_steps": ${Math.max(1, Math.floor(resolved / 10))}, or a longer schedule.`,
    });
    return null;
  }

  #required(key: string, value: number | undefined): number | null {
    if (value !== undefined) return value;
    if (!this.#problems.touches(key))
      this.#addMissing(key, 'a learning rate', `${this.#name} has no default for it; add it.`);
    return null;
  }

  #addMissing(key: string, expected: string, hint: string): void {
    this.#problems.add(key === '' ? [] : [key], { kind: 'missing', expected, found: 'nothing', hint });
  }

  #ordered(lowKey: string, low: number, highKey: string, high: number): boolean {
    if (low <= high || this.#problems.touches(lowKey) || this.#problems.touches(highKey)) return true;
    this.#addOrder(lowKey, low, highKey, high);
    return false;
  }

  #addOrder(lowKey: string, low: number, highKey: string, high: number): void {
    this.#problems.add([lowKey], {
      kind: 'conflict',
      expected: `${lowKey} ≤ ${highKey} = ${high}`,
      found: String(low),
      hint: 'Swap or correct the two.',
    });
  }

  /** DeepSpeed lets these schedules override the optimizer's rate without a word. */
  #noteOptimizerLr(instead: string, peak: number): void {
    const { optimizerLr, notes } = this.#context;
    if (optimizerLr === undefined || optimizerLr === peak) return;
    notes.push(`optimizer.params.lr ${optimizerLr} is not used: ${this.#name} sets the learning rate, ${instead}.`);
  }
}

/** DeepSpeed's. */
const defaultWarmupSteps = 1000;
