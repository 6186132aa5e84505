/**
 * DeepSpeed's JSON as a frozen, fully resolved config: no key is optional any more, units are in the names, and "auto" is left only where the plan
 * decides.
 */
import { readFileSync } from 'node:fs';
import { type ResolvedSparsity, resolveSparsity, type SparsityConfig, sparsityProblems } from '@ds/nn';
import type { ZeroStage } from '../estimate/model-states';
import type { ScheduleConfig } from '../schedule/schedule-config';
import { type BatchSizes, resolveBatch } from './batch';
import { applyKeyRules, checkSchema, copyPlain, type Vocabulary } from './check-schema';
import { ConfigError, describeProblem, ProblemList } from './config-error';
import { keyRules } from './deepspeed-keys';
import { deepSpeedKeys, deepSpeedSchema, type RawDeepSpeed } from './deepspeed-schema';
import { type JsonPath, type JsonSource, objectSource, textSource } from './json-source';
import { type OptimizerConfig, resolveOptimizer } from './optimizer-config';
import { resolveScheduler } from './scheduler-config';

/** A size that the plan takes from the model. */
export type Auto = 'auto';

export type Precision = 'fp32' | 'bf16';

/** What is cut over the ranks, and how much is moved at a time. Sizes are in elements. */
export interface ZeroConfig {
  readonly stage: ZeroStage;
  /** Communicate while computing. Results do not depend on it. */
  readonly overlapComm: boolean;
  readonly reduceBucketElements: number | Auto;
  /** Stages 1 and 2. */
  readonly allgatherBucketElements: number | Auto;
  /** Stage 3, as all below; 0 gathers on demand. */
  readonly prefetchElements: number | Auto;
  readonly maxLiveElements: number | Auto;
  readonly maxReuseDistanceElements: number | Auto;
  /** Parameters with fewer elements stay whole; "auto" keeps none. */
  readonly persistenceThresholdElements: number | Auto;
}

export interface DeepSpeedConfig {
  /** Ranks this config was resolved for. */
  readonly world: number;
  readonly batch: BatchSizes;
  /** Type of the working weights. bf16 has an fp32 master copy. */
  readonly paramDtype: Precision;
  /** Type in which gradients are accumulated and reduced. */
  readonly gradDtype: Precision;
  /** Skip a step when a gradient is not finite. */
  readonly checkGradOverflow: boolean;
  /** Largest global norm; 0 is off. */
  readonly gradientClipping: number;
  readonly optimizer: OptimizerConfig;
  /** null keeps `optimizer.lr`. */
  readonly scheduler: ScheduleConfig | null;
  readonly zero: ZeroConfig;
  /** Which blocks of tokens see each other, for the model; null: all do. */
  readonly sparseAttention: ResolvedSparsity | null;
  /** Steps between two log lines; null is none. */
  readonly stepsPerPrint: number | null;
  readonly wallClockBreakdown: boolean;
  readonly seed: number;
  /** Settings that are allowed and have no effect here: to be shown once, to people. */
  readonly notes: readonly string[];
}

export interface DeepSpeedOptions {
  /** N, the data-parallel ranks. */
  readonly world: number;
  /** Optimizer steps of the run, for "auto" lengths of schedules; default unknown. */
  readonly totalSteps?: number | undefined;
  /** `plan` lets the optimizer (then AdamW) and the batch (then one sample a rank) be absent; default `train`. */
  readonly purpose?: 'train' | 'plan' | undefined;
  /** Seed of the surrounding run; a different one in the file is a conflict. */
  readonly seed?: number | undefined;
  /** Taken over the file's, to compare stages of one file. */
  readonly stage?: ZeroStage | undefined;
  /** Name in front of positions when the config is given as text; default `ds_config.json`. */
  readonly file?: string | undefined;
}

/** Every key DeepSpeed knows. */
export const deepSpeedVocabulary: Vocabulary = {
  of: 'the DeepSpeed config',
  keys: deepSpeedKeys,
  refused: [...keyRules.keys()],
};

/** Seed where nobody names one, BLOOM's. */
export const defaultSeed = 42;

/**
 * Reads a DeepSpeed JSON file; comments and trailing commas are allowed.
 *
 * @throws ConfigError with all problems of the file
 */
export function loadDeepSpeedConfig(path: string, options: DeepSpeedOptions): DeepSpeedConfig {
  return parseDeepSpeedConfig(readConfigText(path), { ...options, file: path });
}

/**
 * Resolves a DeepSpeed config.
 *
 * @param input JSON text, or the object it would give (then problems have no positions)
 * @throws ConfigError with all problems
 */
export function parseDeepSpeedConfig(input: string | object, options: DeepSpeedOptions): DeepSpeedConfig {
  const source = typeof input === 'string' ? textSource(input, options.file ?? 'ds_config.json') : objectSource(input);
  const problems = new ProblemList(source);
  problems.addFaults();
  const config =
    source.value === undefined && problems.all.length > 0 ? null : checkDeepSpeed(source, [], options, problems);
  problems.throwIfAny();
  return config!;
}

/** @throws ConfigError when the file cannot be read */
export function readConfigText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? '';
    const found = { ENOENT: 'no such file', EISDIR: 'a folder', EACCES: 'no permission to read it' }[code] ?? code;
    const parts = {
      kind: 'file',
      expected: 'a JSON file',
      found,
      hint: 'Check the path; it is taken from the working directory.',
    } as const;
    throw new ConfigError([describeProblem(path, null, [], parts)], cause);
  }
}

/**
 * Resolves the DeepSpeed config at `base` of a document.
 *
 * @param problems list of the whole document; everything found is noted there
 * @returns the config, or null when a problem was noted
 */
export function checkDeepSpeed(
  source: JsonSource,
  base: JsonPath,
  options: DeepSpeedOptions,
  problems: ProblemList,
): DeepSpeedConfig | null {
  const inside = problems.inside(...base);
  const before = problems.all.length;
  const raw = copyPlain(base.reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], source.value));
  applyKeyRules(raw, inside);
  const checked = checkSchema(deepSpeedSchema, raw, deepSpeedVocabulary, inside);
  const config = resolve(checked, options, inside);
  return problems.all.length > before ? null : config;
}

function resolve(raw: RawDeepSpeed, options: DeepSpeedOptions, problems: ProblemList): DeepSpeedConfig | null {
  const { world, totalSteps, purpose = 'train' } = options;
  const notes: string[] = [];
  const batchKeys = ['train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'] as const;
  const batchFaulty = batchKeys.some((key) => problems.touches(key));
  const batch = batchFaulty ? null : resolveBatch(pick(raw, batchKeys), world, purpose === 'plan', problems);
  const optimizer = resolveOptimizer(raw.optimizer, purpose, problems);
  const scheduler = resolveScheduler(
    raw.scheduler,
    {
      optimizerLr: raw.optimizer?.params?.lr,
      optimizerFaulty: problems.touches('optimizer', 'params', 'lr'),
      totalSteps: totalSteps ?? null,
      globalBatch: batch?.global ?? null,
      notes,
    },
    problems.inside('scheduler'),
  );
  const dtypes = resolveDtypes(raw, problems);
  const zero = resolveZero(
    { ...raw.zero_optimization, ...(options.stage === undefined ? {} : { stage: options.stage }) },
    notes,
  );
  const sparseAttention = resolveSparse(raw.sparse_attention, problems);
  checkSeed(raw.seed, options.seed, problems);
  if (batch === null || optimizer === null) return null;
  return deepFreeze({
    world,
    batch,
    ...dtypes,
    checkGradOverflow: raw.bf16?.check_grad_overflow ?? true,
    gradientClipping: raw.gradient_clipping ?? 0,
    optimizer,
    scheduler,
    zero,
    sparseAttention,
    stepsPerPrint: raw.steps_per_print ?? null,
    wallClockBreakdown: raw.wall_clock_breakdown ?? false,
    seed: raw.seed ?? options.seed ?? defaultSeed,
    notes,
  });
}

/** One seed for the run: its two places may not disagree. */
function checkSeed(own: number | undefined, ofRun: number | undefined, problems: ProblemList): void {
  if (own === undefined || ofRun === undefined || own === ofRun) return;
  problems.add(['seed'], {
    kind: 'conflict',
    expected: `the seed of the run, ${ofRun}`,
    found: String(own),
    hint: 'Keep one of the two.',
  });
}

function pick<T, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>;
}

function resolveDtypes(raw: RawDeepSpeed, problems: ProblemList): { paramDtype: Precision; gradDtype: Precision } {
  const paramDtype = raw.bf16?.enabled ? 'bf16' : 'fp32';
  const gradDtype = raw.data_types?.grad_accum_dtype ?? 'fp32';
  if (gradDtype === 'bf16' && paramDtype === 'fp32' && !problems.touches('bf16')) {
    problems.add(['data_types', 'grad_accum_dtype'], {
      kind: 'conflict',
      expected: '"fp32" or null where the weights are fp32',
      found: '"bf16"',
      hint: 'Add "bf16": {"enabled": true}, or accumulate in fp32.',
    });
  }
  const wire = raw.communication_data_type ?? gradDtype;
  if (wire !== gradDtype && !problems.touches('data_types')) {
    problems.add(['communication_data_type'], {
      kind: 'conflict',
      expected: `"${gradDtype}" or null, the type gradients are accumulated in`,
      found: `"${wire}"`,
      hint: `Gradients travel as they are accumulated. Remove this key, or write "data_types": {"grad_accum_dtype": "${wire}"}.`,
    });
  }
  return { paramDtype, gradDtype };
}

function resolveZero(raw: NonNullable<RawDeepSpeed['zero_optimization']>, notes: string[]): ZeroConfig {
  const stage = raw.stage ?? 0;
  // Allowed, so that one file can be run at every stage by changing one number; said aloud, because DeepSpeed says nothing.
  const unused = Object.keys(raw).filter((key) => (key.startsWith('stage3_') ? stage !== 3 : false));
  if (raw.allgather_bucket_size !== undefined && stage !== 1 && stage !== 2) unused.push('allgather_bucket_size');
  for (const key of unused) notes.push(`zero_optimization.${key} has no effect at stage ${stage}.`);
  const overlap = raw.overlap_comm ?? 'auto';
  return {
    stage,
    overlapComm: overlap === 'auto' ? stage === 3 : overlap,
    reduceBucketElements: raw.reduce_bucket_size ?? 'auto',
    allgatherBucketElements: raw.allgather_bucket_size ?? 'auto',
    prefetchElements: raw.stage3_prefetch_bucket_size ?? 'auto',
    maxLiveElements: raw.stage3_max_live_parameters ?? 'auto',
    maxReuseDistanceElements: raw.stage3_max_reuse_distance ?? 'auto',
    persistenceThresholdElements: raw.stage3_param_persistence_threshold ?? 'auto',
  };
}

/** What a mode takes, and which keys cannot stand together, is known where the layouts are built. */
function resolveSparse(raw: RawDeepSpeed['sparse_attention'], problems: ProblemList): ResolvedSparsity | null {
  if (raw === undefined || problems.touches('sparse_attention')) return null;
  const pattern = { ...raw, mode: raw.mode ?? 'fixed' } as SparsityConfig;
  const found = sparsityProblems(pattern);
  for (const { key, expected, actual, hint } of found)
    problems.add(['sparse_attention', key], {
      kind: 'conflict',
      expected,
      found: actual,
      hint: `${hint.charAt(0).toUpperCase()}${hint.slice(1)}.`,
    });
  return found.length > 0 ? null : resolveSparsity(pattern);
}

/** Freezes plain data through and through. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const item of Object.values(value)) deepFreeze(item);
  }
  return value;
}
