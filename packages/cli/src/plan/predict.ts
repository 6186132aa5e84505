/** What each ZeRO stage would need of a rank: by running the engine without memory, or by the paper's formulas. */
import { DsError } from '@ds/core-native';
import { bloomParameterCount } from '@ds/nn';
import {
  adamBytesPerParam,
  type DeepSpeedConfig,
  lionBytesPerParam,
  loadDeepSpeedConfig,
  modelStateBytes,
  parseDeepSpeedConfig,
  stepTraffic,
  type ZeroStage,
} from '@ds/zero';
import type { ModelSource } from '../train/model';
import { type PlanNumbers, planByRunning } from './null-run';

export interface StagePlan {
  readonly stage: ZeroStage;
  readonly numbers: Omit<PlanNumbers, 'timeline'>;
}

export interface Prediction {
  readonly parameters: number;
  readonly config: DeepSpeedConfig;
  /** T; undefined where only a count of parameters is known. */
  readonly sequenceLength: number | undefined;
  /** All four, in order. */
  readonly stages: readonly StagePlan[];
}

export interface ConfigChoice {
  readonly world: number;
  /** Path of a DeepSpeed config; undefined takes mixed precision as in the ZeRO paper: 2 + 2 + 12 bytes a parameter. */
  readonly config: string | undefined;
  /** Samples a rank runs at a time, where there is no config. */
  readonly microBatch: number | undefined;
}

export const allStages = [0, 1, 2, 3] as const;

/** Resolves the config to plan with. @throws CONFIG */
export function planConfig({ world, config, microBatch }: ConfigChoice, stage?: ZeroStage): DeepSpeedConfig {
  const options = { world, purpose: 'plan', stage } as const;
  if (config === undefined) {
    const batch = { train_micro_batch_size_per_gpu: microBatch ?? 1 };
    return parseDeepSpeedConfig(
      { ...batch, bf16: { enabled: true }, data_types: { grad_accum_dtype: 'bf16' } },
      options,
    );
  }
  if (microBatch === undefined) return loadDeepSpeedConfig(config, options);
  throw new DsError({
    code: 'CONFIG',
    op: 'plan',
    expected: 'either --config or --micro-batch',
    actual: 'both',
    hint: 'The config says the batch: set "train_micro_batch_size_per_gpu" in it.',
  });
}

/** Plans a model at every stage, to the byte. @throws CONFIG without a sequence length */
export async function predictModel(
  model: ModelSource,
  choice: ConfigChoice,
  givenLength: number | undefined,
): Promise<Prediction> {
  const sequenceLength = givenLength ?? model.config.sequenceLength;
  if (sequenceLength === undefined)
    throw new DsError({
      code: 'CONFIG',
      op: 'plan',
      expected: 'the tokens of a sample',
      actual: 'a model that names no length of its own',
      hint: 'Add --sequence-length 2048.',
    });
  const stages: StagePlan[] = [];
  for (const stage of allStages) {
    const numbers = await planByRunning({ model, config: planConfig(choice, stage), sequenceLength });
    stages.push({ stage, numbers });
  }
  return { parameters: bloomParameterCount(model.config), config: planConfig(choice), sequenceLength, stages };
}

/** Plans a count of parameters by the formulas: model states and traffic; nothing is known of activations. */
export function predictCount(params: number, choice: ConfigChoice): Prediction {
  const config = planConfig(choice);
  const { paramDtype, gradDtype, world, batch, optimizer } = config;
  const bytesPerParam = (optimizer.type === 'Lion' ? lionBytesPerParam : adamBytesPerParam)(paramDtype, gradDtype);
  const stages = allStages.map((stage): StagePlan => {
    const states = modelStateBytes({ params, world, stage, bytesPerParam });
    const { elements, bytes } = stepTraffic({
      params,
      world,
      stage,
      paramBytes: bytesPerParam.params,
      gradBytes: bytesPerParam.grads,
      accumulation: batch.accumulation,
      reduceEvery: 'microBatch',
    });
    return {
      stage,
      numbers: {
        ...states,
        activationBytes: 0,
        gatheredBytes: 0,
        gradientBufferBytes: 0,
        peakBytes: states.modelStateBytes,
        elementsSent: elements,
        bytesSent: bytes,
      },
    };
  });
  return { parameters: params, config, sequenceLength: undefined, stages };
}
