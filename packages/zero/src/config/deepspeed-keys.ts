/**
 * The keys DeepSpeed knows beside the built ones. None is ignored: each is taken only at a value that describes what happens here anyway, and refused
 * by its name at any other.
 */
import { isRecord } from './json-source';

/** A key that takes no decision here. */
export interface KeyRule {
  /** Dotted path. */
  readonly path: string;
  /** `not-built`: DeepSpeed does something with it that we do not. `fixed`: our design has one answer. */
  readonly kind: 'not-built' | 'fixed';
  /** The harmless values in words. */
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
  /** What to do instead, or why there is one answer. */
  readonly advice: string;
}

/** A section that is off without `"enabled": true`. */
function switchable(path: string, advice: string): KeyRule {
  const accepts = (value: unknown) =>
    value === null || (isRecord(value) && (value.enabled === undefined || value.enabled === false));
  return { path, kind: 'not-built', expected: '{"enabled": false} or no such key', accepts, advice };
}

/** A section without a switch: any content would do something. */
function absent(path: string, advice: string): KeyRule {
  const accepts = (value: unknown) => value === null || (isRecord(value) && Object.keys(value).length === 0);
  return { path, kind: 'not-built', expected: 'no such key', accepts, advice };
}

/** An option that is off at one of a few values. */
function unbuilt(path: string, off: readonly unknown[], advice: string): KeyRule {
  const expected = [...off.map((value) => JSON.stringify(value)), 'no such key'].join(' or ');
  return { path, kind: 'not-built', expected, accepts: (value) => off.includes(value), advice };
}

/** An option with one answer here. */
function fixed(path: string, values: readonly unknown[], advice: string): KeyRule {
  const expected = values.map((value) => JSON.stringify(value)).join(' or ');
  return { path, kind: 'fixed', expected, accepts: (value) => values.includes(value), advice };
}

const removeIt = 'Remove it.';
const logInstead = 'Remove it; every step is logged to metrics.jsonl.';

/** Offload is off without a section, or at device "none". */
function offload(name: string, advice: string): KeyRule {
  const accepts = (value: unknown) =>
    value === null || (isRecord(value) && (value.device === 'none' || value.device === null));
  const expected = '{"device": "none"} or no such key';
  return { path: `zero_optimization.${name}`, kind: 'not-built', expected, accepts, advice };
}

const batchAndPrecision: readonly KeyRule[] = [
  switchable('fp16', 'Use {"bf16": {"enabled": true}}, which needs no loss scale, or train in fp32.'),
  { ...absent('bfloat16', 'This is the old name; write "bf16".'), kind: 'fixed' },
  switchable('amp', 'Use {"bf16": {"enabled": true}}.'),
  switchable('torch_autocast', 'Use {"bf16": {"enabled": true}}.'),
  fixed('bf16.immediate_grad_update', [true], 'Gradients are added to their accumulator as soon as they are there.'),
  unbuilt('bf16.bf16_master_weights_and_grads', [false], 'The master weights are fp32.'),
  unbuilt('bf16.bf16_optimizer_states', [false], 'The moments are fp32.'),
  unbuilt('data_types.param_dtype', [null], 'Choose the type of the weights by bf16.enabled.'),
  unbuilt('data_types.buffer_dtype', [null], removeIt),
  fixed('managed_gradient_accumulation', [true], 'The engine counts micro-batches and steps at the boundary.'),
  fixed(
    'prescale_gradients',
    [false],
    'Gradients are summed in fp32 and divided once, which cannot overflow as fp16 sums do.',
  ),
  fixed('gradient_predivide_factor', [1], 'Gradients are summed in fp32 and divided once.'),
  fixed(
    'gradient_allreduce_op',
    ['mean'],
    'Gradients are averaged; for a sum, multiply the learning rate or the loss.',
  ),
  unbuilt('sparse_gradients', [false], 'Embedding gradients are reduced densely.'),
  unbuilt('seq_parallel_communication_data_type', ['fp32'], 'Sequence parallelism is not built.'),
  unbuilt('seq_parallel_comm_data_type', ['fp32'], 'Sequence parallelism is not built.'),
  unbuilt('sequence_parallel_size', [1], 'Every rank is a data-parallel rank.'),
  fixed('disable_allgather', [false], 'Updated weights always travel by all-gather.'),
  fixed('dataloader_drop_last', [false], 'Data wraps around, so no batch is ever short.'),
];

const optimizers: readonly KeyRule[] = [
  unbuilt('optimizer.legacy_fusion', [false], removeIt),
  unbuilt('optimizer.params.torch_adam', [false], 'There is one Adam here, and it is fused.'),
  unbuilt('optimizer.params.amsgrad', [false], removeIt),
  unbuilt('optimizer.params.eps_inside_sqrt', [false], 'eps stands outside the root.'),
  unbuilt('optimizer.params.max_grad_norm', [0, null], 'Write "gradient_clipping" at the top level.'),
  unbuilt('optimizer.params.fused', [true, null], removeIt),
  unbuilt('optimizer.params.foreach', [false, null], removeIt),
  unbuilt('optimizer.params.maximize', [false], removeIt),
  unbuilt('optimizer.params.freeze_step', [], '1-bit Adam is not built; use AdamW.'),
  fixed('zero_allow_untested_optimizer', [true, false], 'Every optimizer that can be named is tested with ZeRO.'),
  unbuilt('zero_force_ds_cpu_optimizer', [true], 'There is one optimizer implementation here.'),
];

const zeroPlusPlus = 'Remove it; weights and gradients travel unquantised.';
const zeroOptions: readonly KeyRule[] = [
  offload('offload_optimizer', 'Cut the states over more ranks instead (stage 1 to 3).'),
  offload('offload_param', 'Cut the weights over more ranks instead (stage 3).'),
  unbuilt('zero_optimization.cpu_offload', [false, null], 'Cut the states over more ranks instead (stage 1 to 3).'),
  unbuilt('zero_optimization.cpu_offload_param', [false, null], 'Cut the weights over more ranks instead (stage 3).'),
  unbuilt('zero_optimization.cpu_offload_use_pin_memory', [false, null], 'Nothing is offloaded.'),
  fixed(
    'zero_optimization.sub_group_size',
    [1e9, 'auto'],
    'The optimizer runs over a shard in one pass without temporaries, so there is nothing to cut into groups.',
  ),
  fixed('zero_optimization.contiguous_gradients', [true], 'Gradients are written straight into one buffer per unit.'),
  fixed('zero_optimization.reduce_scatter', [true], 'Stages 1 to 3 reduce-scatter; stage 0 all-reduces.'),
  fixed('zero_optimization.allgather_partitions', [true], 'Weights travel by all-gather, never by broadcasts.'),
  fixed(
    'zero_optimization.use_multi_rank_bucket_allreduce',
    [false],
    "DeepSpeed's default (true) all-reduces whole buckets and sends 3Ψ a step; here gradients are reduce-scattered, 2Ψ.",
  ),
  fixed(
    'zero_optimization.load_from_fp32_weights',
    [true],
    'Checkpoints hold fp32 master weights, and those are loaded.',
  ),
  fixed('zero_optimization.elastic_checkpoint', [true, false], 'Every checkpoint loads at any stage and world size.'),
  fixed('zero_optimization.legacy_stage1', [false], 'There is one stage 1.'),
  fixed('zero_optimization.round_robin_gradients', [false], 'Every unit is cut over all ranks already.'),
  fixed('zero_optimization.parameter_alignment', [true], 'Every parameter starts at a 256-byte boundary.'),
  fixed('zero_optimization.compute_grad_norm', [true], 'The norm of every step is computed and logged.'),
  fixed('zero_optimization.ignore_unused_parameters', [true], 'A parameter the loss does not reach has gradient 0.'),
  fixed(
    'zero_optimization.memory_efficient_linear',
    [true],
    'The backward pass gathers weights again and keeps no copy.',
  ),
  fixed('zero_optimization.override_module_apply', [true], 'Parameters are cut as they are built.'),
  fixed(
    'zero_optimization.stage3_gather_16bit_weights_on_model_save',
    [true],
    'Saving always gathers, tensor by tensor.',
  ),
  fixed(
    'zero_optimization.stage3_gather_fp16_weights_on_model_save',
    [true],
    'Saving always gathers, tensor by tensor.',
  ),
  unbuilt(
    'zero_optimization.stage3_model_persistence_threshold',
    ['auto', null],
    'Use stage3_param_persistence_threshold.',
  ),
  fixed(
    'zero_optimization.stage3_module_granularity_threshold',
    [0],
    'A unit (a block, the embedding) is gathered as a whole.',
  ),
  fixed('zero_optimization.stage3_use_all_reduce_for_fetch_params', [false], 'Weights travel by all-gather.'),
  fixed('zero_optimization.stage3_allgather_sequential', [false], 'A unit is gathered by one call, without copies.'),
  unbuilt(
    'zero_optimization.stage3_partition_stream_chunk_size',
    [0],
    'No rank ever builds a whole parameter it does not own.',
  ),
  unbuilt('zero_optimization.zero_hpz_partition_size', [1], 'Remove it; all ranks are one group.'),
  unbuilt('zero_optimization.zero_quantized_weights', [false], zeroPlusPlus),
  unbuilt('zero_optimization.zero_quantized_nontrainable_weights', [false], zeroPlusPlus),
  unbuilt('zero_optimization.zero_quantized_gradients', [false], zeroPlusPlus),
  unbuilt('zero_optimization.zeropp_loco_param', [null], zeroPlusPlus),
  unbuilt('zero_optimization.mics_shard_size', [-1], 'Remove it; all ranks are one group.'),
  unbuilt('zero_optimization.mics_hierarchical_params_gather', [false], 'Remove it; all ranks are one group.'),
  absent('zero_optimization.zenflow', removeIt),
  absent('zero_optimization.leaf_module', 'Remove it; units are taken from the model.'),
  unbuilt('zero_optimization.pipeline_loading_checkpoint', [false], removeIt),
  unbuilt(
    'zero_optimization.log_trace_cache_warnings',
    [false],
    'There is no trace: the order of units is known before step 0.',
  ),
  unbuilt('zero_optimization.enable_sanity_checks', [false], removeIt),
  unbuilt('zero_optimization.save_muon_momentum_buffer_in_memory', [false], 'Muon is not built.'),
];

/** Keys of activation checkpointing are all off at false, 0 or null. */
const activationCheckpointing: KeyRule = {
  path: 'activation_checkpointing',
  kind: 'not-built',
  expected: 'every option false, or no such key',
  accepts: (value) => value === null || (isRecord(value) && Object.values(value).every((option) => !option)),
  advice: 'Remove it; use a smaller micro batch with more accumulation steps to save activation memory.',
};

const tensorParallel: KeyRule = {
  path: 'tensor_parallel',
  kind: 'not-built',
  expected: '{"autotp_size": 0} or no such key',
  accepts: (value) => value === null || (isRecord(value) && [undefined, 0, 1].includes(value.autotp_size as number)),
  advice: 'Remove it; use zero_optimization.stage 3 to cut the weights.',
};

const tools: readonly KeyRule[] = [
  activationCheckpointing,
  tensorParallel,
  absent('pipeline', 'Remove it; use zero_optimization.stage 3 to cut the weights.'),
  absent('aio', 'Remove it; nothing is offloaded to disk.'),
  absent('checkpoint', 'Remove it; every checkpoint loads at any stage and world size.'),
  absent('compression_training', removeIt),
  absent('weight_quantization', removeIt),
  absent('timers', 'Remove it; use wall_clock_breakdown.'),
  absent('mesh', removeIt),
  switchable('compile', removeIt),
  switchable('expert_parallel', removeIt),
  switchable('hybrid_engine', 'Remove it; generate with @ds/inference.'),
  switchable('progressive_layer_drop', removeIt),
  switchable('eigenvalue', removeIt),
  switchable('quantize_training', removeIt),
  switchable('curriculum_learning', removeIt),
  switchable('data_efficiency', removeIt),
  switchable('elasticity', 'Remove it; a checkpoint can be resumed at any world size.'),
  switchable('autotuning', 'Remove it; `ds plan` prints memory and traffic before a run.'),
  switchable('flops_profiler', removeIt),
  switchable('comms_logger', 'Remove it; the bytes each rank sends are logged with every step.'),
  switchable('tensorboard', logInstead),
  switchable('wandb', logInstead),
  switchable('comet', logInstead),
  switchable('csv_monitor', logInstead),
  switchable('nebula', removeIt),
  absent('datastates_ckpt', removeIt),
  unbuilt('memory_breakdown', [false], 'Remove it; memory per rank is logged with every step.'),
  unbuilt('dump_state', [false], removeIt),
  unbuilt('graph_harvesting', [false], removeIt),
  unbuilt('log_level', [null], removeIt),
  unbuilt('vocabulary_size', [null], "Remove it; the model's config holds it."),
  unbuilt('use_data_before_expert_parallelism', [false], removeIt),
  unbuilt('use_node_local_storage', [false], removeIt),
  unbuilt('allgather_size', [], 'Write zero_optimization.allgather_bucket_size.'),
];

/** Every key rule, by dotted path. */
export const keyRules: ReadonlyMap<string, KeyRule> = new Map(
  [...batchAndPrecision, ...optimizers, ...zeroOptions, ...tools].map((rule) => [rule.path, rule]),
);

/** Optimizers DeepSpeed or PyTorch would take; those that are built stand in optimizer-config.ts. */
export const unbuiltOptimizers: readonly string[] = [
  'Adagrad',
  'Adamax',
  'Adafactor',
  'ASGD',
  'LBFGS',
  'MuAdam',
  'MuAdamW',
  'Muon',
  'MuSGD',
  'NAdam',
  'OneBitAdam',
  'OneBitLamb',
  'RAdam',
  'RMSprop',
  'SGD',
  'SparseAdam',
  'ZeroOneAdam',
];

/** PyTorch's schedulers, which DeepSpeed also takes by name. */
export const unbuiltSchedulers: readonly string[] = [
  'ConstantLR',
  'CosineAnnealingLR',
  'CosineAnnealingWarmRestarts',
  'CyclicLR',
  'ExponentialLR',
  'LambdaLR',
  'LinearLR',
  'MultiStepLR',
  'MultiplicativeLR',
  'OneCycleLR',
  'PolynomialLR',
  'ReduceLROnPlateau',
  'SequentialLR',
  'StepLR',
];
