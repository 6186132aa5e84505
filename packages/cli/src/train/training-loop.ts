/** The steps of a run on one rank: train, say how it goes, evaluate, save, and stop in order when asked. */
import path = require('node:path');

import type { BatchLoader, HuggingFaceTokenizer } from '@ds/io';
import type { UnitUse } from '@ds/nn';
import { type MicroBatch, type StepReport, saveCheckpoint, type TrainConfig, type ZeroEngine } from '@ds/zero';
import { dealSamples, evaluationRows, nextRows } from './batches';
import { bitsPerByte, labelBytes } from './bits-per-byte';
import type { CheckpointAbout } from './checkpoint-about';
import type { OpenData } from './data-source';
import { MemoryWatch, thinTimeline } from './memory-watch';
import { checkpointsFolder } from './places';
import type { EndRecord, RankMemory, RunRecord } from './records';
import { TrafficMeter } from './traffic-meter';

export interface LoopParts {
  readonly engine: ZeroEngine;
  readonly uses: readonly UnitUse[];
  readonly config: TrainConfig;
  readonly data: OpenData;
  readonly tokenizer: HuggingFaceTokenizer | null;
  readonly consumedSamples: number;
  /** What checkpoints keep of the model beside its weights. */
  readonly about: CheckpointAbout;
  /** Rank 0 hears what happens. */
  readonly onRecord: (record: RunRecord) => void;
  /** Whether this rank was asked to stop. One rank is enough: all hear of it behind the same step. */
  readonly stopAsked: () => boolean;
  /** End in order behind the step that passes this moment, ms since 1970; Infinity never does. */
  readonly deadlineMs: number;
  /** Whether checkpoints are written. */
  readonly keep: boolean;
}

/** What each rank tells the others behind every step. */
interface StepNews extends RankMemory {
  readonly stop: EndRecord['reason'] | null;
}

/** Steps after which buffers are as they will stay, so that a timeline of the next one is like all later ones. */
const settledAfterSteps = 1;

export class TrainingLoop {
  readonly #parts: LoopParts;
  readonly #loader: BatchLoader;
  readonly #validation: Validation | null;
  readonly #watch: MemoryWatch;
  readonly #meter: TrafficMeter;
  #stepsHere = 0;
  /** The most that this rank ever held, from its start on. */
  #peakBytes = 0;

  constructor(parts: LoopParts) {
    const { engine, config, data, consumedSamples, uses } = parts;
    const { rank, size: world } = engine.group;
    const { micro: microBatch } = config.deepspeed.batch;
    this.#parts = parts;
    this.#loader = dealSamples(data.train, { microBatch, rank, world, consumedSamples });
    this.#validation = data.validation && new Validation(parts, data.validation, { microBatch, rank, world });
    this.#watch = new MemoryWatch(engine, uses);
    this.#meter = new TrafficMeter(engine.group);
  }

  get consumedSamples(): number {
    return this.#loader.consumedSamples;
  }

  /** Trains until the steps are done or somebody asks to stop. @returns why it ended */
  async run(): Promise<EndRecord['reason']> {
    const { engine, config } = this.#parts;
    let reason: EndRecord['reason'] | null = null;
    while (reason === null && engine.stepsTaken < config.steps) {
      reason = await this.#step();
      const step = engine.stepsTaken;
      const last = step >= config.steps || reason !== null;
      if (config.evalInterval !== null && (step % config.evalInterval === 0 || last)) await this.#evaluate();
      if (last || (config.checkpointInterval !== null && step % config.checkpointInterval === 0)) await this.#save();
    }
    return reason ?? 'done';
  }

  async #step(): Promise<EndRecord['reason'] | null> {
    const { engine, stopAsked, deadlineMs } = this.#parts;
    const watched = this.#stepsHere === settledAfterSteps;
    const begin = performance.now();
    if (watched) this.#watch.start();
    this.#meter.start();
    const report = await engine.trainBatch(() => nextRows(this.#loader));
    const memory = this.#memory(watched);
    const timeline = watched ? this.#watch.stop() : undefined;
    const sent = this.#meter.read().bytes;
    const stop = stopAsked() ? 'stopped' : Date.now() >= deadlineMs ? 'deadline' : null;
    const news = await this.#exchange({ ...memory, stop });
    this.#stepsHere++;
    this.#tell(report, { seconds: (performance.now() - begin) / 1000, sent, news });
    if (timeline) await this.#tellTimelines(report.step, timeline);
    return news.map((one) => one.stop).find((asked) => asked !== null) ?? null;
  }

  #memory(watched: boolean): RankMemory {
    const { engine } = this.#parts;
    const { live, peak } = engine.device.account();
    this.#peakBytes = Math.max(this.#peakBytes, watched ? this.#watch.peakBytes : peak);
    return {
      rank: engine.group.rank,
      live_bytes: live,
      peak_bytes: this.#peakBytes,
      model_state_bytes: watched ? this.#watch.modelStateBytes() : engine.modelStateBytes(),
    };
  }

  /** Puts every rank's news side by side; so all ranks stop behind the same step. */
  async #exchange(own: StepNews): Promise<StepNews[]> {
    const texts: string[] = await this.#parts.engine.group.exchange(JSON.stringify(own));
    return texts.map((text) => JSON.parse(text) as StepNews);
  }

  #tell(report: StepReport, { seconds, sent, news }: { seconds: number; sent: number; news: StepNews[] }): void {
    const { engine, config, data, onRecord } = this.#parts;
    const tokens = config.deepspeed.batch.global * data.train.sequenceLength;
    const own = news[engine.group.rank]!;
    onRecord({
      type: 'step',
      step: report.step,
      loss: report.loss,
      grad_norm: report.gradNorm,
      lr: report.lr,
      tokens_per_second: tokens / seconds,
      bytes_sent: sent,
      model_state_bytes: own.model_state_bytes,
      peak_bytes: own.peak_bytes,
      rank: own.rank,
      skipped: report.skipped,
      seconds,
      ranks: news.map(({ stop: _, ...memory }) => memory),
    });
  }

  async #tellTimelines(step: number, own: ReturnType<MemoryWatch['stop']>): Promise<void> {
    const texts: string[] = await this.#parts.engine.group.exchange(JSON.stringify(thinTimeline(own)));
    for (const [rank, text] of texts.entries())
      this.#parts.onRecord({ type: 'timeline', step, rank, timeline: JSON.parse(text) });
  }

  async #evaluate(): Promise<void> {
    const { engine, onRecord } = this.#parts;
    if (!this.#validation) return;
    onRecord({ type: 'validation', step: engine.stepsTaken, ...(await this.#validation.measure()) });
  }

  async #save(): Promise<void> {
    const { about, engine, config, onRecord, keep } = this.#parts;
    if (!keep) return;
    const begin = performance.now();
    const folder = checkpointsFolder(config.output);
    const tag = `step-${engine.stepsTaken}`;
    await saveCheckpoint(engine, folder, tag, { ...about, consumedSamples: this.consumedSamples });
    const seconds = (performance.now() - begin) / 1000;
    onRecord({ type: 'checkpoint', step: engine.stepsTaken, path: path.join(folder, tag), seconds });
  }
}

/** The loss on text that was held out; the same samples every time. */
class Validation {
  readonly #engine: ZeroEngine;
  readonly #batches: readonly MicroBatch[];
  readonly #tokens: number;
  /** Text bytes of all ranks' labels; null without a tokenizer. */
  #bytes: number | null = null;

  constructor(
    { engine, config, tokenizer }: LoopParts,
    dataset: NonNullable<OpenData['validation']>,
    place: { microBatch: number; rank: number; world: number },
  ) {
    const { microBatch, world } = place;
    // No more samples than there are: counting some twice would weigh them double.
    const most = Math.max(1, Math.floor(dataset.length / (microBatch * world))) * world;
    const microBatches = Math.min(config.evalBatches, most);
    const rounds = Math.ceil(microBatches / world);
    this.#engine = engine;
    this.#batches = evaluationRows(dataset, place, microBatches);
    this.#tokens = rounds * world * microBatch * dataset.sequenceLength;
    if (!tokenizer) return;
    // Every rank can see what the others evaluate: the samples are the first ones.
    const all = evaluationRows(dataset, { microBatch, rank: 0, world: 1 }, rounds * world);
    this.#bytes = labelBytes(all, tokenizer);
  }

  async measure(): Promise<{ loss: number; bits_per_byte: number | null }> {
    const loss = await this.#engine.evalBatch(this.#batches);
    const bytes = this.#bytes;
    return { loss, bits_per_byte: bytes ? bitsPerByte(loss, this.#tokens, bytes) : null };
  }
}
