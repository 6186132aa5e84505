/** ds plan: what memory and traffic a training run needs, before it runs. */
import type { ZeroStage } from '@ds/zero';
import { type Command, InvalidArgumentError } from 'commander';
import { summaryOf } from '../catalog';
import { readMemory } from '../doctor/system';
import { allStages, type Prediction, planConfig, predictCount, predictModel, type StagePlan } from '../plan/predict';
import { parseCount, parsePositive } from '../terminal/arguments';
import { formatBytes, formatCount, plural } from '../terminal/format';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';
import { formatTable } from '../terminal/table';
import { findModel } from '../train/model';

interface PlanFlags extends OutputOptions {
  readonly model?: string;
  readonly params?: number;
  readonly world: number;
  readonly stage?: ZeroStage;
  readonly config?: string;
  readonly sequenceLength?: number;
  readonly microBatch?: number;
}

const help = `
With --model the engine itself runs a step on a device that has shapes but no memory: the figures are exact, also for
models of any size. With --params they are the formulas of the ZeRO paper, and peak_bytes is the model states alone.
Without --config: bf16 weights and gradients, AdamW with an fp32 master copy (16 bytes a parameter), one sample a rank.

Examples:
  $ ds plan --model bloom-560m --world 4 --stage 2
  $ ds plan --model bloom --world 64 --stage 3 --json
  $ ds plan --model ./my-model --world 2 --config ds_config.json --sequence-length 1024
  $ ds plan --params 7.5e9 --world 64 --stage 3
`;

export function register(program: Command): void {
  const command = program.command('plan').description(summaryOf('plan'));
  command
    .option('--model <model>', 'a folder, a config.json or a preset')
    .option('--params <count>', 'a number of parameters instead, such as 7.5e9', parsePositive)
    .option('-n, --world <n>', 'ranks', parseCount, 1)
    .option('--stage <stage>', "ZeRO stage 0 to 3; default the config's", parseStage)
    .option('--config <file>', 'a DeepSpeed config')
    .option('--sequence-length <tokens>', "tokens of a sample; default the model's own", parseCount)
    .option('--micro-batch <samples>', 'samples a rank runs at a time, without --config; default 1', parseCount);
  withOutputOptions(command).addHelpText('after', help).action(plan);
}

function parseStage(text: string): ZeroStage {
  const stage = allStages.find((one) => String(one) === text);
  if (stage === undefined) throw new InvalidArgumentError('Expected 0, 1, 2 or 3.');
  return stage;
}

async function plan(flags: PlanFlags, command: Command): Promise<void> {
  const output = outputOf(flags);
  const { model, params, sequenceLength } = flags;
  if ((model === undefined) === (params === undefined))
    command.error('give either --model or --params', { code: 'commander.missingArgument' });
  const choice = { world: flags.world, config: flags.config, microBatch: flags.microBatch };
  const stage = flags.stage ?? planConfig(choice).zero.stage;
  const prediction =
    model === undefined ? predictCount(params!, choice) : await predictModel(findModel(model), choice, sequenceLength);
  output.result(toJson(prediction, stage), () => toText(prediction, stage, model ?? 'a model', output));
}

function toJson({ parameters, config, sequenceLength, stages }: Prediction, chosen: ZeroStage): object {
  const { numbers } = stages[chosen]!;
  return {
    world: config.world,
    stage: chosen,
    parameters,
    basis: sequenceLength === undefined ? 'formula' : 'engine',
    param_dtype: config.paramDtype,
    grad_dtype: config.gradDtype,
    batch: { ...config.batch, sequence_length: sequenceLength ?? null },
    per_rank: {
      params_bytes: Math.round(numbers.paramsBytes),
      grads_bytes: Math.round(numbers.gradsBytes),
      optimizer_bytes: Math.round(numbers.optimizerBytes),
      model_state_bytes: Math.round(numbers.modelStateBytes),
      activation_bytes: sequenceLength === undefined ? null : numbers.activationBytes,
      gathered_bytes: sequenceLength === undefined ? null : numbers.gatheredBytes,
      gradient_buffer_bytes: sequenceLength === undefined ? null : numbers.gradientBufferBytes,
      peak_bytes: Math.round(numbers.peakBytes),
    },
    traffic: {
      elements_sent_per_step: Math.round(numbers.elementsSent),
      bytes_sent_per_step: Math.round(numbers.bytesSent),
    },
    stages: stages.map(({ stage, numbers: of }) => ({
      stage,
      model_state_bytes: Math.round(of.modelStateBytes),
      peak_bytes: Math.round(of.peakBytes),
      bytes_sent_per_step: Math.round(of.bytesSent),
    })),
  };
}

function toText(prediction: Prediction, chosen: ZeroStage, name: string, output: Output): string {
  const { parameters, config, sequenceLength, stages } = prediction;
  const { bold, dim } = output.colors;
  const batch =
    sequenceLength === undefined
      ? ''
      : `, ${plural(config.batch.micro, 'sample')} of ${sequenceLength} tokens a rank at a time`;
  const head =
    `${bold(name)}: ${formatCount(parameters)} parameters on ${plural(config.world, 'rank')}; ` +
    `${config.paramDtype} weights, ${config.gradDtype} gradients${batch}`;
  const basis =
    sequenceLength === undefined
      ? 'By the formulas of the ZeRO paper: model states only, no activations.'
      : 'Exact: the engine ran one step on the null device.';
  return [head, dim(basis), '', stageTable(stages, chosen, sequenceLength !== undefined), '', verdict(prediction)].join(
    '\n',
  );
}

function stageTable(stages: readonly StagePlan[], chosen: ZeroStage, exact: boolean): string {
  const columns = [
    { title: 'per rank' },
    ...stages.map(({ stage }) => ({ title: `${stage === chosen ? '> ' : ''}stage ${stage}` })),
  ];
  const row = (title: string, of: (numbers: StagePlan['numbers']) => number) => [
    title,
    ...stages.map(({ numbers }) => formatBytes(of(numbers))),
  ];
  const exactRows = [
    row('activations', (n) => n.activationBytes),
    row('gathered weights', (n) => n.gatheredBytes),
    row('gradient buffers', (n) => n.gradientBufferBytes),
    row('peak', (n) => n.peakBytes),
  ];
  return formatTable(columns, [
    row('weights', (n) => n.paramsBytes),
    row('gradients', (n) => n.gradsBytes),
    row('optimizer states', (n) => n.optimizerBytes),
    row('model states', (n) => n.modelStateBytes),
    ...(exact ? exactRows : []),
    row('sent per step', (n) => n.bytesSent),
  ]);
}

/** Says whether it would fit on this machine, and from which stage on. */
function verdict({ config, stages, sequenceLength }: Prediction): string {
  const { total_bytes, limit_bytes } = readMemory();
  const memory = limit_bytes ?? total_bytes;
  const onHere = `${plural(config.world, 'rank')} on this machine (${formatBytes(memory)})`;
  const fits = stages.find(({ numbers }) => numbers.peakBytes * config.world <= memory);
  const least = stages.at(-1)!.numbers.peakBytes;
  const what = sequenceLength === undefined ? 'model states' : 'peaks';
  if (fits) return `The ${what} of ${onHere} fit from stage ${fits.stage} on.`;
  return `The ${what} of ${onHere} do not fit: stage 3 needs ${formatBytes(least)} a rank.`;
}
