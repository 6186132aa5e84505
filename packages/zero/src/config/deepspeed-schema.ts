/**
 * The keys of DeepSpeed's JSON that are built, with the values they take. Every description is documentation: it states the default, and where it
 * differs from DeepSpeed's, why. What a key means is DeepSpeed's meaning.
 */
import { sparseBlockSizes, sparsityModes } from '@ds/nn';
import * as z from 'zod/mini';
import {
  flag,
  integer,
  integerOrAuto,
  integerOrNull,
  integers,
  integersOrNull,
  number,
  oneOf,
  section,
  text,
} from './schema-leaves';

const elementCount = { min: 1 };

/** The keys of every type; which of them a type takes is resolved behind the schema. */
const optimizerParams = {
  lr: number('Learning rate. Default 1e-3.', { min: 0 }),
  betas: z.optional(
    z
      .tuple([beta(), beta()], { error: 'two numbers ≥ 0 and < 1 such as [0.9, 0.999]' })
      .check(
        z.describe(
          'Decay rates of the two moments, default [0.9, 0.999]; for type Lion of the direction and of the moment, default [0.9, 0.99].',
        ),
      ),
  ),
  eps: number('Adam, Lamb: added to the root of the second moment, outside the root. Default 1e-8.', { above: 0 }),
  weight_decay: number('Weight decay. Default 0.', { min: 0 }),
  bias_correction: flag('Adam, Lamb: correct the moments for their start at 0, by 1 − β^t. Default true.'),
  adam_w_mode: flag(
    'For type Adam: decay the weights directly (true, default) or through the gradient, as L2 (false).',
  ),
  max_coeff: number('For type Lamb: upper bound of the ratio of norms. Default 10.', { above: 0 }),
  min_coeff: number('For type Lamb: lower bound of the ratio of norms. Default 0.01.', { min: 0 }),
};

function beta() {
  const error = 'a number ≥ 0 and < 1';
  return z.number({ error }).check(z.gte(0, { error }), z.lt(1, { error }));
}

const optimizerShape = {
  type: text('Adam, AdamW, Lamb or Lion, in any case.'),
  params: section('Settings of the optimizer.', optimizerParams, '{"lr": 1e-4}'),
};

const schedulerShape = {
  type: text('WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle, LRRangeTest, or our own MegatronLR.'),
  params: z.optional(
    z
      .record(z.string(), z.unknown(), { error: 'an object such as {"warmup_num_steps": 100}' })
      .check(z.describe('Settings of the scheduler.')),
  ),
};

const bf16Shape = {
  enabled: flag('Keep the working weights in bf16, with an fp32 master copy. Default false: everything is fp32.'),
  check_grad_overflow: flag('Skip a step, on every rank, when a gradient is not finite. Default true.'),
};

const dataTypesShape = {
  grad_accum_dtype: oneOf(
    'Type in which gradients are accumulated and reduced. Default (null) "fp32", also for bf16 weights: DeepSpeed then accumulates in bf16, ' +
      'which loses small contributions. "bf16" needs bf16.enabled and gives the 16Ψ bytes of the ZeRO paper instead of 18Ψ.',
    ['fp32', 'bf16', null],
  ),
};

const zeroShape = {
  stage: oneOf(
    'What is cut over the ranks: 0 nothing, 1 optimizer states, 2 and gradients, 3 and weights. Default 0.',
    [0, 1, 2, 3],
  ),
  reduce_bucket_size: integerOrAuto(
    'Elements reduced at a time. Default "auto": sized by the plan from the model. DeepSpeed takes 5e8 whatever the model, which can make a higher ' +
      'stage cost more memory than a lower one.',
    elementCount,
  ),
  allgather_bucket_size: integerOrAuto(
    'Elements gathered at a time after a step, stages 1 and 2. Default "auto": sized by the plan from the model, not 5e8.',
    elementCount,
  ),
  overlap_comm: oneOf(
    'Communicate while computing. Default (null, "auto") true in stage 3 and false below, as in DeepSpeed. Results do not depend on it.',
    [true, false, null, 'auto'],
  ),
  stage3_prefetch_bucket_size: integerOrAuto(
    'Elements gathered ahead of use; 0 gathers on demand. Default "auto": the plan looks ahead by whole units. DeepSpeed: 5e7.',
    { min: 0 },
  ),
  stage3_max_live_parameters: integerOrAuto(
    'Upper bound of gathered elements at any time. Default "auto": what the plan needs. DeepSpeed: 1e9.',
    { min: 0 },
  ),
  stage3_max_reuse_distance: integerOrAuto(
    'Keep weights that are used again within so many elements. Default "auto": the plan keeps the last unit between forward and backward. ' +
      'DeepSpeed: 1e9.',
    { min: 0 },
  ),
  stage3_param_persistence_threshold: integerOrAuto(
    'Parameters with fewer elements stay whole on every rank. Default "auto", which keeps none: a unit is gathered in one piece, so small ' +
      'parameters cost no message of their own. DeepSpeed: 1e5.',
    { min: 0 },
  ),
};

/** The keys of every mode; which of them a mode takes, and their defaults, are the pattern's own (@ds/nn). */
const sparseShape = {
  mode: oneOf(
    'The pattern. Default "fixed", as in DeepSpeed; "local_sliding_window" is its class of that name.',
    sparsityModes,
  ),
  block: oneOf('Tokens of a block; sequences must be multiples of it. Default 16.', sparseBlockSizes),
  different_layout_per_head: flag('Whether heads may have different layouts. Default false.'),
  num_local_blocks: integer('fixed: blocks of a local window. Default 4.', { min: 1 }),
  num_global_blocks: integer('fixed: global blocks of a window, bigbird: at the start of the sequence. Default 1.', {
    min: 0,
  }),
  num_different_global_patterns: integer(
    'fixed: places in the window that the global blocks of different heads take. Default 1.',
    { min: 1 },
  ),
  num_random_blocks: integer('bigbird, variable: random blocks of a row. Default 1 in bigbird, 0 in variable.', {
    min: 0,
  }),
  local_window_blocks: integers('variable: blocks of the windows; the last one repeats. Default [4].', {
    min: 1,
    length: 1,
  }),
  global_block_indices: integers('variable, bslongformer: global blocks, or where ranges of them start. Default [0].', {
    min: 0,
  }),
  global_block_end_indices: integersOrNull(
    'variable, bslongformer: where the ranges end. Default null: one block each.',
    {
      min: 1,
    },
  ),
  num_sliding_window_blocks: integer(
    'bigbird, bslongformer, local_sliding_window: width of the band around the diagonal. Default 3.',
    { min: 1 },
  ),
  attention: oneOf(
    'Whether blocks see what follows them. Default "bidirectional", in local_sliding_window "unidirectional". A causal model hides later tokens ' +
      'either way.',
    ['unidirectional', 'bidirectional'],
  ),
  horizontal_global_attention: flag('fixed, variable: whether global blocks see everything, too. Default false.'),
  seed: integer(
    "Our own key: seed of the random blocks. Default 0. DeepSpeed draws them from Python's global generator.",
    { min: 0 },
  ),
  max_seq_length: integerOrNull(
    'Our own key: build the layout for so many tokens and cut it to the sequence, as DeepSpeed does from 2048. Default null: build it for the sequence.',
    { min: 1 },
  ),
};

const batch = { min: 1 };

export const deepSpeedShape = {
  $schema: text('Where editors find the JSON Schema of this file. Ignored.'),
  train_batch_size: integerOrAuto(
    'Samples per optimizer step over all ranks = micro batch × accumulation × ranks. Any two of the three give the third.',
    batch,
  ),
  train_micro_batch_size_per_gpu: integerOrAuto('Samples one rank runs at a time.', batch),
  gradient_accumulation_steps: integerOrAuto('Micro-batches per optimizer step.', batch),
  gradient_clipping: number(
    'Largest global norm of the gradients. Default 0: off. DeepSpeed clips at 1.0 by default since 0.19 and did not before; here nothing is ' +
      'clipped that the file does not ask for.',
    { min: 0 },
  ),
  steps_per_print: integerOrNull('Steps between two log lines. Default null: none from the engine.', { min: 1 }),
  wall_clock_breakdown: flag('Measure forward, backward, reduction and step apart. Default false.'),
  seed: integer('Our own key: seed of weight initialisation and dropout. Default 42.', { min: 0 }),
  communication_data_type: oneOf(
    'Type in which gradients travel. Default null: the type they are accumulated in, the only one that is built.',
    ['fp32', 'bf16', null],
  ),
  optimizer: section('The optimizer.', optimizerShape, '{"type": "AdamW", "params": {"lr": 1e-4}}'),
  scheduler: section(
    'How the learning rate moves. Default: it does not.',
    schedulerShape,
    '{"type": "WarmupLR", "params": {"warmup_num_steps": 100}}',
  ),
  bf16: section('Training in bfloat16.', bf16Shape, '{"enabled": true}'),
  data_types: section('Types of what is not a weight.', dataTypesShape, '{"grad_accum_dtype": "fp32"}'),
  zero_optimization: section('ZeRO.', zeroShape, '{"stage": 2}'),
  sparse_attention: section(
    'Which blocks of tokens see each other in every layer of the model. Default: all do.',
    sparseShape,
    '{"mode": "fixed", "block": 16}',
  ),
};

const rootError: z.core.$ZodErrorMap = (issue) =>
  issue.code === 'unrecognized_keys'
    ? undefined
    : 'an object such as {"train_batch_size": 8, "optimizer": {"type": "AdamW"}}';

export const deepSpeedSchema = z.strictObject(deepSpeedShape, { error: rootError });

/** A checked but unresolved DeepSpeed config. */
export type RawDeepSpeed = z.infer<typeof deepSpeedSchema>;

/** The built keys by the path of the object they stand in. */
export const deepSpeedKeys: Readonly<Record<string, readonly string[]>> = {
  '': Object.keys(deepSpeedShape),
  optimizer: Object.keys(optimizerShape),
  'optimizer.params': Object.keys(optimizerParams),
  scheduler: Object.keys(schedulerShape),
  bf16: Object.keys(bf16Shape),
  data_types: Object.keys(dataTypesShape),
  zero_optimization: Object.keys(zeroShape),
  sparse_attention: Object.keys(sparseShape),
};

/** Gives the JSON Schema of the built keys, for editors and for the documentation. */
export function deepSpeedJsonSchema(): unknown {
  return z.toJSONSchema(deepSpeedSchema);
}
