/**
 * One rank of `ds train`: started by the launcher with a job as its argument. It writes what happens on stdout as JSON, one
 * line a message, and words for people on stderr.
 */
import { ProcessGroup } from '@ds/core-native';
import { loadTokenizer } from '@ds/io';
import { initialize, loadCheckpoint, loadTrainConfig, type TrainConfig, type ZeroEngine } from '@ds/zero';
import { planByRunning } from '../plan/null-run';
import { aboutModel } from './checkpoint-about';
import { type DataSource, type OpenData, openData } from './data-source';
import { exportModel } from './export-model';
import { errorFields, type Job, type RankMessage } from './job';
import { openWeightsFor } from './load-weights';
import { MetricsFile } from './metrics-file';
import { createModel, findModel, type ModelSource } from './model';
import { modelFolder } from './places';
import type { RunRecord } from './records';
import { startRecord } from './start-record';
import { StopRequest } from './stop-request';
import { TrainingLoop } from './training-loop';

async function main(): Promise<void> {
  const job = JSON.parse(process.argv[2]!) as Job;
  const config = loadTrainConfig(job.config, job.overrides);
  using stop = new StopRequest(config.output);
  const group = await ProcessGroup.fromEnvironment({ device: config.device });
  const modelSource = findModel(config.model);
  using data = openTrainingData(job.data, config, modelSource);
  const model = createModel(modelSource);
  const engine = await initializeEngine(config, modelSource, model, group);
  const consumedSamples = await resume(engine, job.resumeFrom);
  using metrics = group.rank === 0 && job.keep ? new MetricsFile(config.output, metricsMode(job)) : undefined;
  const onRecord = (record: RunRecord) => {
    if (group.rank !== 0) return;
    metrics?.add(record);
    send(record);
  };
  if (group.rank === 0) {
    const { sequenceLength } = data.train;
    const planned = await planByRunning({ model: modelSource, config: config.deepspeed, sequenceLength });
    onRecord(startRecord({ config, model: modelSource, sequenceLength, resumedFrom: engine.stepsTaken, planned }));
  }
  const begin = performance.now();
  const loop = new TrainingLoop({
    engine,
    uses: model.uses,
    config,
    data,
    tokenizer: job.data.kind === 'tokens' && job.data.tokenizer !== null ? loadTokenizer(job.data.tokenizer) : null,
    consumedSamples,
    about: aboutModel(modelSource.config, tokenizerOf(job.data, modelSource), config.output),
    onRecord,
    stopAsked: () => stop.asked,
    deadlineMs: job.deadlineMs ?? Number.POSITIVE_INFINITY,
    keep: job.keep,
  });
  const reason = await loop.run();
  const seconds = (performance.now() - begin) / 1000;
  const folder = reason === 'stopped' || !job.keep ? null : modelFolder(config.output);
  if (folder !== null)
    await exportModel(engine, { folder, model: modelSource, tokenizerFolder: tokenizerOf(job.data, modelSource) });
  onRecord({ type: 'end', step: engine.stepsTaken, reason, seconds, model: folder });
  engine[Symbol.dispose]();
  model[Symbol.dispose]();
  group[Symbol.dispose]();
}

function metricsMode(job: Job): 'continue' | 'anew' {
  return job.resumeFrom === null ? 'anew' : 'continue';
}

function openTrainingData(source: DataSource, config: TrainConfig, model: ModelSource): OpenData {
  const { data, steps, seed, validationSplit, deepspeed } = config;
  return openData(source, {
    vocabSize: model.config.vocabSize,
    sequenceLength: config.sequenceLength ?? (source.kind === 'tokens' ? (model.config.sequenceLength ?? null) : null),
    numSamples: steps * deepspeed.batch.global,
    seed,
    validationSplit,
    inlineRows: typeof data === 'object' && 'ids' in data ? data.ids : null,
  });
}

async function initializeEngine(
  config: TrainConfig,
  source: ModelSource,
  model: ReturnType<typeof createModel>,
  group: ProcessGroup,
): Promise<ZeroEngine> {
  using weights = source.weightsFolder === undefined ? undefined : openWeightsFor(model, source.weightsFolder);
  return await initialize({
    model,
    config: config.deepspeed,
    group,
    device: config.device,
    decayGroups: config.weightDecayGroups,
    ...(weights ? { weights: weights.source } : {}),
  });
}

/** Goes on from a checkpoint. @returns the samples that were consumed before */
async function resume(engine: ZeroEngine, folder: string | null): Promise<number> {
  if (folder === null) return 0;
  const { consumedSamples } = await loadCheckpoint(engine, folder);
  // A checkpoint that another program wrote may not say: then the data goes on as if nothing had been skipped.
  return typeof consumedSamples === 'number' ? consumedSamples : engine.stepsTaken * engine.config.batch.global;
}

function tokenizerOf(data: DataSource, model: ModelSource): string | null {
  return (data.kind === 'tokens' ? data.tokenizer : null) ?? model.tokenizerFolder ?? null;
}

function send(message: RankMessage): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

main().catch((error: unknown) => {
  send({ type: 'error', error: errorFields(error) });
  if (process.env.DS_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  // Not process.exit: what is on its way to stdout must arrive. But nothing may keep a failed rank alive either.
  process.exitCode = 1;
  setTimeout(() => process.exit(), 500).unref();
});
