/** Runs a training: prepares data, starts the ranks, passes on what they tell, and ends them in order. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError, launch, type RankLine } from '@ds/core-native';
import { loadTrainConfig, type TrainConfig, type TrainOverrides } from '@ds/zero';
import { Interrupt } from '../terminal/interrupt';
import { type ErrorFields, type Job, parseRankMessage } from './job';
import { findModel, type ModelSource } from './model';
import { stopFile } from './places';
import { prepareData } from './prepare-data';
import type { EndRecord, RunRecord } from './records';
import { findResumePoint, type ResumePoint } from './resume-point';

export interface TrainingListener {
  /** What the run is, before any rank starts. */
  readonly onReady?: (run: ReadyRun) => void;
  readonly onRecord: (record: RunRecord) => void;
  /** Words for people. */
  readonly onNote: (text: string) => void;
}

export interface ReadyRun {
  readonly config: TrainConfig;
  readonly model: ModelSource;
  readonly resume: ResumePoint;
}

export interface TrainingOptions extends TrainingListener {
  /** Path of the config. */
  readonly config: string;
  readonly overrides?: TrainOverrides;
  readonly deadlineMs?: number;
  /** Default true; false measures only. */
  readonly keep?: boolean;
}

/**
 * Runs a training to its end, or to a Ctrl-C: the first one lets the step end, saves and returns, the second one throws.
 * @throws CONFIG before anything starts; what a rank threw; COMM when one died; ABORTED after a second Ctrl-C
 */
export async function runTraining(options: TrainingOptions): Promise<EndRecord> {
  const { overrides = {}, onReady, onNote, keep = true } = options;
  const config = loadTrainConfig(options.config, overrides);
  for (const note of config.deepspeed.notes) onNote(`note: ${note}`);
  const model = findModel(config.model);
  const resume = findResumePoint(config);
  fs.mkdirSync(config.output, { recursive: true });
  const data = prepareData(config, model, (stage) => onNote(`${stage} ...`));
  if (resume.folder !== null) onNote(`going on behind step ${resume.stepsTaken} from ${resume.folder}`);
  onReady?.({ config, model, resume });
  const job: Job = {
    config: options.config,
    overrides,
    data,
    resumeFrom: resume.folder,
    deadlineMs: options.deadlineMs ?? null,
    keep,
  };
  return launchRanks(job, config, options);
}

async function launchRanks(job: Job, config: TrainConfig, { onRecord, onNote }: TrainingListener): Promise<EndRecord> {
  const stop = stopFile(config.output);
  fs.rmSync(stop, { force: true });
  using interrupt = new Interrupt(() => {
    onNote('stopping behind this step and saving; Ctrl-C again ends it at once');
    fs.writeFileSync(stop, '');
  });
  let end: EndRecord | undefined;
  let failure: ErrorFields | undefined;
  const onLine = ({ rank, stream, text }: RankLine) => {
    const message = stream === 'stdout' ? parseRankMessage(text) : undefined;
    if (!message) onNote(config.world === 1 ? text : `[${rank}] ${text}`);
    else if (message.type === 'error') failure ??= message.error;
    else {
      if (message.type === 'end') end = message;
      onRecord(message);
    }
  };
  try {
    await launch({
      world: config.world,
      script: path.join(__dirname, 'rank.js'),
      args: [JSON.stringify(job)],
      onLine,
      signal: interrupt.signal,
      // We hear them ourselves: ranks are to end their step and save, which takes longer than a launcher would wait.
      forwardSignals: false,
    });
  } catch (error) {
    if (interrupt.signal.aborted) throw endedAtOnce(error);
    // The first rank that failed says why; the others died of it.
    throw failure ? new DsError({ ...failure, cause: error }) : error;
  } finally {
    fs.rmSync(stop, { force: true });
  }
  if (end) return end;
  throw new DsError({
    code: 'INTERNAL',
    op: 'train',
    expected: 'a rank 0 that ends its run',
    actual: 'one that ended without a word',
  });
}

function endedAtOnce(cause: unknown): DsError {
  return new DsError({
    code: 'ABORTED',
    op: 'train',
    expected: 'to end in order',
    actual: 'a second Ctrl-C',
    hint: 'The last checkpoint is whole: --resume goes on from it.',
    cause,
  });
}
