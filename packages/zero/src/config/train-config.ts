/** The config of `ds train`: what to train on what, for how long, on how many ranks, and in it the DeepSpeed JSON. */
import * as z from 'zod/mini';
import { checkSchema, copyPlain, type Vocabulary } from './check-schema';
import { ConfigError, formatValue, ProblemList } from './config-error';
import {
  checkDeepSpeed,
  type DeepSpeedConfig,
  deepFreeze,
  deepSpeedVocabulary,
  loadDeepSpeedConfig,
  readConfigText,
} from './deepspeed-config';
import { isRecord, type JsonSource, objectSource, textSource } from './json-source';
import { integer, integerOrNull, number, oneOf, text } from './schema-leaves';

/** Data given in place: rows of token ids, taken in order, wrapping around, never shuffled. */
export interface InlineData {
  readonly ids: readonly (readonly number[])[];
}

export interface TrainConfig {
  /** Folder, path of a config.json, name of a preset, or a model config in place. */
  readonly model: string | Readonly<Record<string, unknown>>;
  /** Folder, `.bin/.idx` prefix, JSON file with `ids`, text files, or rows in place. */
  readonly data: string | readonly string[] | InlineData;
  /** Optimizer steps. */
  readonly steps: number;
  readonly world: number;
  /** Where every rank computes: `cpu`, or `cuda`, the GPU of its own. */
  readonly device: 'cpu' | 'cuda';
  /** Also in `deepspeed.seed`. */
  readonly seed: number;
  /** Folder for checkpoints, metrics and the final model. */
  readonly output: string;
  readonly deepspeed: DeepSpeedConfig;
  /** Tokens per sample; null takes the data's rows or the model's own length. */
  readonly sequenceLength: number | null;
  /** Folder or tokenizer.json; null takes the model folder's, or trains one where the data is text. */
  readonly tokenizer: string | null;
  /** Share of the data held out, from its end; 0 is none. */
  readonly validationSplit: number;
  /** Steps between two evaluations; null is none. */
  readonly evalInterval: number | null;
  /** Micro-batches per evaluation. */
  readonly evalBatches: number;
  /** Steps between two checkpoints; null saves at the end only. */
  readonly checkpointInterval: number | null;
  /** `false` starts anew, `true` needs a checkpoint in `output`, "auto" takes one if it is there; else the folder of a checkpoint. */
  readonly resume: boolean | string;
  /** Which parameters decay: all, or only those with two dims or more (not biases and norms). */
  readonly weightDecayGroups: 'all' | 'matrices';
}

/** What a command line may set over the file. */
export interface TrainOverrides {
  readonly model?: string | undefined;
  readonly data?: string | undefined;
  readonly steps?: number | undefined;
  readonly world?: number | undefined;
  readonly device?: string | undefined;
  readonly seed?: number | undefined;
  readonly output?: string | undefined;
  readonly resume?: boolean | string | undefined;
}

export interface TrainOptions {
  /** Name in front of positions when the config is given as text; default `train.json`. */
  readonly file?: string | undefined;
  readonly overrides?: TrainOverrides | undefined;
}

const modelError = 'a folder, a config.json, a preset such as "bloom-560m", or a model config object';
const dataError = 'a folder, a .bin/.idx prefix, a JSON file, text files, or {"ids": [[1, 2, 3]]}';
const deepSpeedError = 'a DeepSpeed config object, or the path of one';
const resumeError = 'true, false, "auto" or the folder of a checkpoint';

const pathText = (error: string) => z.string({ error }).check(z.minLength(1, { error }));
const anyObject = z.record(z.string(), z.unknown());
const tokenId = z.int({ error: 'a token id, an integer ≥ 0' }).check(z.gte(0, { error: 'a token id, an integer ≥ 0' }));

const trainShape = {
  $schema: text('Where editors find the JSON Schema of this file. Ignored.'),
  model: z.optional(z.union([pathText(modelError), anyObject], { error: modelError })),
  data: z.optional(
    z.union(
      [
        pathText(dataError),
        z.array(z.string({ error: dataError })).check(z.minLength(1, { error: 'at least one text file' })),
        anyObject,
      ],
      { error: dataError },
    ),
  ),
  steps: integer('Optimizer steps.', { min: 1 }),
  world: integer('Ranks. Default 1.', { min: 1 }),
  device: oneOf('Where every rank computes; "cuda" takes a GPU a rank. Default "cpu".', ['cpu', 'cuda']),
  seed: integer('Seed of weight initialisation, data order and dropout. Default 42.', { min: 0 }),
  output: text('Folder for checkpoints, metrics and the final model. Default "runs/train".', 'the path of a folder'),
  deepspeed: z.optional(z.union([pathText(deepSpeedError), anyObject], { error: deepSpeedError })),
  sequence_length: integerOrNull("Tokens per sample. Default null: the data's rows or the model's own length.", {
    min: 1,
  }),
  tokenizer: z.optional(z.nullable(pathText('the path of a tokenizer, or null'))),
  validation_split: number('Share of the data held out, from its end. Default 0.', { min: 0, below: 1 }),
  eval_interval: integerOrNull('Steps between two evaluations. Default null: none.', { min: 1 }),
  eval_batches: integer('Micro-batches per evaluation. Default 8.', { min: 1 }),
  checkpoint_interval: integerOrNull('Steps between two checkpoints. Default null: at the end only.', { min: 1 }),
  resume: z.optional(z.union([z.boolean(), pathText(resumeError)], { error: resumeError })),
  weight_decay_groups: oneOf('Which parameters decay. Default "all".', ['all', 'matrices']),
};

const trainSchema = z.strictObject(trainShape, {
  error: (issue) =>
    issue.code === 'unrecognized_keys' ? undefined : 'an object with "model", "data", "steps" and "deepspeed"',
});

const inlineSchema = z.strictObject({
  ids: z.optional(
    z
      .array(
        z
          .array(tokenId, { error: 'a row of token ids' })
          .check(z.minLength(2, { error: 'a row of at least 2 token ids' })),
        {
          error: 'rows of token ids such as [[1, 2, 3]]',
        },
      )
      .check(z.minLength(1, { error: 'at least one row' })),
  ),
});

/** Train keys at the top, DeepSpeed's one level down, so that a key in the wrong one is sent to the right one. */
const trainVocabulary: Vocabulary = {
  of: 'the train config',
  keys: {
    '': Object.keys(trainShape),
    ...Object.fromEntries(
      Object.entries(deepSpeedVocabulary.keys).map(([path, keys]) => [
        path === '' ? 'deepspeed' : `deepspeed.${path}`,
        keys,
      ]),
    ),
  },
  refused: deepSpeedVocabulary.refused.map((path) => `deepspeed.${path}`),
};

const required = {
  model: modelError,
  data: dataError,
  steps: 'the number of optimizer steps',
  deepspeed: deepSpeedError,
} as const;

/**
 * Reads a train config; comments and trailing commas are allowed. Paths in it are taken from the working directory.
 *
 * @throws ConfigError with all problems of the file, and of the DeepSpeed file it names
 */
export function loadTrainConfig(path: string, overrides?: TrainOverrides): TrainConfig {
  return parseTrainConfig(readConfigText(path), { file: path, overrides });
}

/**
 * Resolves a train config.
 *
 * @param input JSON text, or the object it would give (then problems have no positions)
 * @throws ConfigError with all problems
 */
export function parseTrainConfig(input: string | object, options: TrainOptions = {}): TrainConfig {
  const source = typeof input === 'string' ? textSource(input, options.file ?? 'train.json') : objectSource(input);
  const problems = new ProblemList(source);
  problems.addFaults();
  const readable = source.value !== undefined || problems.all.length === 0;
  const config = readable ? checkTrain(source, options.overrides ?? {}, problems) : null;
  problems.throwIfAny();
  return config!;
}

function checkTrain(source: JsonSource, overrides: TrainOverrides, problems: ProblemList): TrainConfig | null {
  const inFile = checkSchema(trainSchema, copyPlain(source.value), trainVocabulary, problems);
  if (!isRecord(source.value)) return null;
  const checked = { ...inFile, ...checkOverrides(overrides, problems) };
  addMissing(checked, problems);
  const world = checked.world ?? 1;
  const deepspeed = resolveDeepSpeed(source, { ...checked, seed: inFile.seed }, world, problems);
  const data = resolveData(checked.data, problems);
  checkEvaluation(checked, problems);
  const { model, steps } = checked;
  if (model === undefined || steps === undefined || data === null || deepspeed === null) return null;
  const seed = checked.seed ?? deepspeed.seed;
  return deepFreeze({
    model,
    data,
    steps,
    world,
    device: checked.device ?? 'cpu',
    seed,
    output: checked.output ?? 'runs/train',
    deepspeed: { ...deepspeed, seed },
    sequenceLength: checked.sequence_length ?? null,
    tokenizer: checked.tokenizer ?? null,
    validationSplit: checked.validation_split ?? 0,
    evalInterval: checked.eval_interval ?? null,
    evalBatches: checked.eval_batches ?? 8,
    checkpointInterval: checked.checkpoint_interval ?? null,
    resume: checked.resume ?? false,
    weightDecayGroups: checked.weight_decay_groups ?? 'all',
  });
}

/** Checks what the command line sets by the same rules; its problems stand before those of the file. */
function checkOverrides(overrides: TrainOverrides, problems: ProblemList): CheckedTrain {
  const onCommandLine = new ProblemList({ ...objectSource(overrides), file: 'command line' });
  const checked = checkSchema(trainSchema, copyPlain(overrides), trainVocabulary, onCommandLine);
  problems.adopt(onCommandLine.all);
  return checked;
}

type CheckedTrain = z.infer<typeof trainSchema>;

function addMissing(checked: CheckedTrain, problems: ProblemList): void {
  for (const [key, expected] of Object.entries(required)) {
    if (checked[key as keyof typeof required] !== undefined || problems.touches(key)) continue;
    problems.add([key], { kind: 'missing', expected, found: 'nothing', hint: `Add "${key}".` });
  }
}

/** Resolves the DeepSpeed part in place, or the file it names. */
function resolveDeepSpeed(
  source: JsonSource,
  checked: CheckedTrain,
  world: number,
  problems: ProblemList,
): DeepSpeedConfig | null {
  const { deepspeed, steps, seed } = checked;
  if (deepspeed === undefined) return null;
  const options = { world, totalSteps: steps, seed };
  if (typeof deepspeed !== 'string') return checkDeepSpeed(source, ['deepspeed'], options, problems);
  try {
    return loadDeepSpeedConfig(deepspeed, options);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.adopt(error.problems);
    return null;
  }
}

function resolveData(data: CheckedTrain['data'], problems: ProblemList): TrainConfig['data'] | null {
  if (data === undefined || typeof data === 'string' || Array.isArray(data)) return data ?? null;
  const inside = problems.inside('data');
  const { ids } = checkSchema(
    inlineSchema,
    copyPlain(data),
    { of: 'data', keys: { '': ['ids'] }, refused: [] },
    inside,
  );
  if (ids === undefined && !problems.touches('data')) {
    inside.add([], {
      kind: 'missing',
      expected: '"ids"',
      found: formatValue(data),
      hint: 'Write {"ids": [[1, 2, 3]]}.',
    });
  }
  return ids === undefined ? null : { ids };
}

function checkEvaluation(checked: CheckedTrain, problems: ProblemList): void {
  const interval = checked.eval_interval ?? null;
  const split = checked.validation_split ?? 0;
  if (interval !== null && split === 0 && !problems.touches('validation_split')) {
    problems.add(['eval_interval'], {
      kind: 'conflict',
      expected: 'a validation_split > 0 to evaluate on',
      found: `eval_interval ${interval} with nothing held out`,
      hint: 'Add "validation_split": 0.05, or remove "eval_interval".',
    });
  }
  if (interval === null && checked.eval_batches !== undefined && !problems.touches('eval_interval')) {
    problems.add(['eval_batches'], {
      kind: 'conflict',
      expected: 'an eval_interval',
      found: `eval_batches ${checked.eval_batches} without evaluations`,
      hint: 'Add "eval_interval": 100, or remove "eval_batches".',
    });
  }
}
