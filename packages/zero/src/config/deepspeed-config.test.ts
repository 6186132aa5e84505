import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from './config-error';
import { loadDeepSpeedConfig, parseDeepSpeedConfig } from './deepspeed-config';

const minimal = { train_batch_size: 8, optimizer: { type: 'AdamW' } };

function problemsOf(config: object, options: { world?: number; totalSteps?: number } = {}) {
  try {
    parseDeepSpeedConfig(config, { world: 1, ...options });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('a DeepSpeed config', () => {
  it('has these defaults', () => {
    expect(parseDeepSpeedConfig(minimal, { world: 2 })).toEqual({
      world: 2,
      batch: { global: 8, micro: 4, accumulation: 1 },
      paramDtype: 'fp32',
      gradDtype: 'fp32',
      checkGradOverflow: true,
      gradientClipping: 0,
      optimizer: {
        type: 'Adam',
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weightDecay: 0,
        biasCorrection: true,
        decoupledWeightDecay: true,
      },
      scheduler: null,
      zero: {
        stage: 0,
        overlapComm: false,
        reduceBucketElements: 'auto',
        allgatherBucketElements: 'auto',
        prefetchElements: 'auto',
        maxLiveElements: 'auto',
        maxReuseDistanceElements: 'auto',
        persistenceThresholdElements: 'auto',
      },
      sparseAttention: null,
      stepsPerPrint: null,
      wallClockBreakdown: false,
      seed: 42,
      notes: [],
    });
  });

  it('reads every built key', () => {
    const config = parseDeepSpeedConfig(
      `{
        "$schema": "./ds.schema.json",
        "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2, "train_batch_size": "auto",
        "gradient_clipping": 1.0, "steps_per_print": 10, "wall_clock_breakdown": true, "seed": 7,
        "communication_data_type": "bf16",
        "optimizer": { "type": "adam", "params": { "lr": 2e-4, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1,
          "bias_correction": false, "adam_w_mode": false, "torch_adam": false } },
        "scheduler": { "type": "WarmupCosineLR", "params": { "total_num_steps": 100, "warmup_num_steps": 10 } },
        "bf16": { "enabled": true, "check_grad_overflow": false },
        "data_types": { "grad_accum_dtype": "bf16" },
        "zero_optimization": { "stage": 3, "reduce_bucket_size": 5e8, "allgather_bucket_size": 1e6, "overlap_comm": false,
          "stage3_prefetch_bucket_size": 5e7, "stage3_max_live_parameters": 1e9, "stage3_max_reuse_distance": 0,
          "stage3_param_persistence_threshold": 1e5, "sub_group_size": 1e9 }
      }`,
      { world: 3 },
    );
    expect(config).toMatchObject({
      batch: { global: 24, micro: 4, accumulation: 2 },
      gradientClipping: 1,
      stepsPerPrint: 10,
      wallClockBreakdown: true,
      seed: 7,
      paramDtype: 'bf16',
      gradDtype: 'bf16',
      checkGradOverflow: false,
      optimizer: {
        type: 'Adam',
        lr: 2e-4,
        beta1: 0.8,
        beta2: 0.95,
        eps: 1e-6,
        weightDecay: 0.1,
        biasCorrection: false,
        decoupledWeightDecay: false,
      },
      scheduler: {
        type: 'WarmupCosineLR',
        peakLr: 2e-4,
        warmupMinRatio: 0,
        cosMinRatio: 1e-4,
        warmupSteps: 10,
        warmupType: 'log',
        totalSteps: 100,
      },
      zero: {
        stage: 3,
        overlapComm: false,
        reduceBucketElements: 5e8,
        allgatherBucketElements: 1e6,
        prefetchElements: 5e7,
        maxLiveElements: 1e9,
        maxReuseDistanceElements: 0,
        persistenceThresholdElements: 1e5,
      },
    });
    expect(config.notes).toEqual(['zero_optimization.allgather_bucket_size has no effect at stage 3.']);
  });

  it('is frozen through and through', () => {
    const config = parseDeepSpeedConfig(minimal, { world: 1 });
    expect(Object.isFrozen(config) && Object.isFrozen(config.zero) && Object.isFrozen(config.optimizer)).toBe(true);
    expect(Object.isFrozen(config.notes)).toBe(true);
  });

  it('leaves the given object as it was', () => {
    const given = structuredClone({
      ...minimal,
      fp16: { enabled: false },
      zero_optimization: { reduce_scatter: true },
    });
    const before = structuredClone(given);
    parseDeepSpeedConfig(given, { world: 1 });
    expect(given).toEqual(before);
  });

  it.each([
    [0, false],
    [1, false],
    [2, false],
    [3, true],
  ])('overlaps at stage %i by default: %p', (stage, overlap) => {
    for (const overlap_comm of [undefined, null, 'auto']) {
      const config = { ...minimal, zero_optimization: { stage, ...(overlap_comm !== undefined && { overlap_comm }) } };
      expect(parseDeepSpeedConfig(config, { world: 1 }).zero.overlapComm).toBe(overlap);
    }
  });

  it('accumulates in fp32 also for bf16 weights, unless told', () => {
    const dtypes = (extra: object) => {
      const { paramDtype, gradDtype } = parseDeepSpeedConfig(
        { ...minimal, bf16: { enabled: true }, ...extra },
        { world: 1 },
      );
      return [paramDtype, gradDtype];
    };
    expect(dtypes({})).toEqual(['bf16', 'fp32']);
    expect(dtypes({ data_types: { grad_accum_dtype: null } })).toEqual(['bf16', 'fp32']);
    expect(dtypes({ data_types: { grad_accum_dtype: 'bf16' } })).toEqual(['bf16', 'bf16']);
  });

  it('takes stage 3 sizes below stage 3, so that one file runs at every stage, and says that they do nothing', () => {
    const zero = { stage: 2, stage3_prefetch_bucket_size: 5e7, stage3_max_live_parameters: 'auto' };
    expect(parseDeepSpeedConfig({ ...minimal, zero_optimization: zero }, { world: 1 }).notes).toEqual([
      'zero_optimization.stage3_prefetch_bucket_size has no effect at stage 2.',
      'zero_optimization.stage3_max_live_parameters has no effect at stage 2.',
    ]);
  });

  it('needs neither optimizer nor batch for a plan', () => {
    const config = parseDeepSpeedConfig({ zero_optimization: { stage: 3 } }, { world: 4, purpose: 'plan' });
    expect(config.batch).toEqual({ global: 4, micro: 1, accumulation: 1 });
    expect(config.optimizer).toMatchObject({ type: 'Adam', decoupledWeightDecay: true });
    expect(problemsOf({ zero_optimization: { stage: 3 } }).map((problem) => problem.path)).toEqual([
      'train_batch_size',
      'optimizer',
    ]);
  });

  it('names an object of a program without positions', () => {
    const [problem] = problemsOf({ ...minimal, zero_optimization: { stage: 5 } });
    expect(problem).toEqual({
      kind: 'value',
      file: null,
      line: null,
      column: null,
      path: 'zero_optimization.stage',
      expected: '0, 1, 2 or 3',
      found: '5',
      nearest: null,
      hint: 'Correct the value or remove the key.',
      message: 'config zero_optimization.stage: expected 0, 1, 2 or 3, got 5. Correct the value or remove the key.',
    });
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, 10n, () => 1])('refuses %p, which no JSON holds', (value) => {
    expect(problemsOf({ ...minimal, gradient_clipping: value }).map((problem) => problem.path)).toEqual([
      'gradient_clipping',
    ]);
  });

  it('throws one error with code, operation and all messages', () => {
    const run = () =>
      parseDeepSpeedConfig('{"train_batch_sise": 8, "fp16": {"enabled": true}}', { world: 1, file: 'a.json' });
    expect(run).toThrow(ConfigError);
    try {
      run();
    } catch (error) {
      expect(error).toMatchObject({ code: 'CONFIG', op: 'config', name: 'ConfigError' });
      expect((error as ConfigError).message).toMatch(
        /^config: expected a config without problems, got 3 problems in a\.json\. \na\.json:1:/,
      );
    }
  });
});

describe('schedulers in the config', () => {
  const scheduler = (type: string, params: object, lr?: number, totalSteps?: number) => {
    const optimizer = { type: 'AdamW', params: lr === undefined ? {} : { lr } };
    return parseDeepSpeedConfig({ ...minimal, optimizer, scheduler: { type, params } }, { world: 1, totalSteps });
  };

  it('take the peak from the optimizer unless it is given', () => {
    const warmup = { minLr: 0, warmupSteps: 10, warmupType: 'log' };
    expect(scheduler('WarmupLR', { warmup_num_steps: 10 }, 5e-4).scheduler).toEqual({
      type: 'WarmupLR',
      maxLr: 5e-4,
      ...warmup,
    });
    const given = scheduler('WarmupLR', { warmup_num_steps: 10, warmup_max_lr: 2e-3 }, 5e-4);
    expect(given.scheduler).toEqual({ type: 'WarmupLR', maxLr: 2e-3, ...warmup });
    expect(given.notes).toEqual([
      'optimizer.params.lr 0.0005 is not used: WarmupLR sets the learning rate, its peak is warmup_max_lr = 0.002.',
    ]);
    expect(scheduler('WarmupLR', { warmup_num_steps: 10, warmup_max_lr: 2e-3 }).notes).toEqual([]);
    const auto = { warmup_num_steps: 10, warmup_max_lr: 'auto', warmup_min_lr: 'auto' };
    expect(scheduler('WarmupLR', auto, 5e-4).scheduler).toEqual({ type: 'WarmupLR', maxLr: 5e-4, ...warmup });
  });

  it('take their length from the run where it is "auto" or not given', () => {
    for (const params of [{}, { total_num_steps: 'auto' }]) {
      const both = { ...params, warmup_num_steps: 5, warmup_type: 'linear' };
      const { scheduler: decay } = scheduler('WarmupDecayLR', both, 1e-3, 200);
      expect(decay).toEqual({
        type: 'WarmupDecayLR',
        minLr: 0,
        maxLr: 1e-3,
        warmupSteps: 5,
        warmupType: 'linear',
        totalSteps: 200,
      });
    }
  });

  it('may be longer than the run, which is noted where the peak is never reached', () => {
    const long = scheduler('WarmupDecayLR', { warmup_num_steps: 1000, total_num_steps: 10_000 }, 1e-3, 50);
    expect(long.notes).toEqual([
      'The run ends after 50 steps, inside the warm-up of 1000 steps: the peak learning rate is never reached.',
    ]);
  });

  it('have the defaults of DeepSpeed', () => {
    expect(scheduler('OneCycle', { cycle_min_lr: 1e-4, cycle_max_lr: 1e-3 }).scheduler).toEqual({
      type: 'OneCycle',
      minLr: 1e-4,
      maxLr: 1e-3,
      firstSteps: 2000,
      secondSteps: 2000,
      firstStairs: 0,
      secondStairs: 0,
      decaySteps: 0,
      decayRate: 0,
      momentum: { min: 0.8, max: 0.9, decayRate: 0 },
    });
    const half = { cycle_min_lr: 0, cycle_max_lr: 1, cycle_first_step_size: 7, cycle_first_stair_count: 3 };
    expect(scheduler('OneCycle', { ...half, cycle_momentum: false }).scheduler).toMatchObject({
      firstSteps: 7,
      secondSteps: 7,
      firstStairs: 3,
      secondStairs: 3,
      momentum: null,
    });
    expect(scheduler('LRRangeTest', {}).scheduler).toEqual({
      type: 'LRRangeTest',
      minLr: 1e-3,
      stepSize: 2000,
      stepRate: 1,
      staircase: false,
    });
  });

  it('by samples count the global batch', () => {
    const params = { min_lr: 6e-6, warmup_samples: 183_105, decay_samples: 200_000_000 };
    expect(scheduler('MegatronLR', params, 6e-5).scheduler).toEqual({
      type: 'MegatronLR',
      peakLr: 6e-5,
      minLr: 6e-6,
      warmupSamples: 183_105,
      decaySamples: 200_000_000,
      decayStyle: 'cosine',
      samplesPerStep: 8,
    });
    expect(scheduler('MegatronLR', {}, 6e-5, 100).scheduler).toMatchObject({
      warmupSamples: 0,
      decaySamples: 800,
      minLr: 0,
    });
  });
});

describe('a config file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ds-config-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is read, and named in front of every problem', () => {
    const path = join(folder, 'ds.json');
    writeFileSync(path, JSON.stringify(minimal));
    expect(loadDeepSpeedConfig(path, { world: 4 }).batch.micro).toBe(2);
    writeFileSync(path, '{\n  "stage": 1\n}');
    expect(() => loadDeepSpeedConfig(path, { world: 4 })).toThrow(
      `${path}:2:3 stage: expected a key of the DeepSpeed config`,
    );
  });

  it('that is missing or a folder says so', () => {
    expect(() => loadDeepSpeedConfig(join(folder, 'no.json'), { world: 1 })).toThrow(
      'expected a JSON file, got no such file',
    );
    expect(() => loadDeepSpeedConfig(folder, { world: 1 })).toThrow('expected a JSON file, got a folder');
  });
});
