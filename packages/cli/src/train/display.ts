/** A training run as people see it: a head, a bar, a closing word. */
import path = require('node:path');

import { bloomParameterCount } from '@ds/nn';
import { writeReport } from '../report/write-report';
import { formatBytes, formatCount, formatNumber, formatSeconds, plural } from '../terminal/format';
import type { Output } from '../terminal/output';
import { type Facts, type Progress, startProgress } from '../terminal/progress';
import type { EndRecord, RunRecord, StartRecord, StepRecord } from './records';
import type { ReadyRun } from './run-training';

export class TrainingDisplay {
  readonly #output: Output;
  #run: ReadyRun | undefined;
  #progress: Progress | undefined;
  #start: StartRecord | undefined;
  #loss: number | undefined;
  #tokensPerSecond: number | undefined;

  constructor(output: Output) {
    this.#output = output;
  }

  ready(run: ReadyRun): void {
    this.#run = run;
    const { config, model } = run;
    const { deepspeed, world, steps } = config;
    const { bold, dim } = this.#output.noteColors;
    const weights = deepspeed.paramDtype === 'fp32' ? 'fp32' : `${deepspeed.paramDtype} with an fp32 master copy`;
    this.#output.note(
      `${bold(model.name)}: ${formatCount(bloomParameterCount(model.config))} parameters in ${weights}, ` +
        `ZeRO stage ${deepspeed.zero.stage} on ${plural(world, 'rank')}, ` +
        `${plural(deepspeed.batch.global, 'sequence')} a step, ${plural(steps, 'step')}\n${dim(`output: ${config.output}`)}`,
    );
  }

  add(record: RunRecord): void {
    if (record.type === 'start') this.#begin(record);
    else if (record.type === 'step') this.#step(record);
    else if (record.type === 'validation') {
      const bits = record.bits_per_byte === null ? '' : `, ${formatNumber(record.bits_per_byte)} bits per byte`;
      this.note(`step ${record.step}: validation loss ${formatNumber(record.loss)}${bits}`);
    } else if (record.type === 'checkpoint')
      this.note(`step ${record.step}: saved ${record.path} in ${formatSeconds(record.seconds)}`);
  }

  note(text: string): void {
    if (this.#output.quiet) return;
    if (this.#progress) this.#progress.note(text);
    else this.#output.note(text);
  }

  /** Tells how it ended, and writes the report. */
  end(end: EndRecord): void {
    this.stop();
    const { config } = this.#run!;
    const report = writeReport(config.output);
    const { green, bold } = this.#output.noteColors;
    const steps = `${plural(end.step, 'step')} in ${formatSeconds(end.seconds)}`;
    if (end.reason === 'stopped')
      this.#output.note(`stopped behind step ${end.step} of ${config.steps}; --resume goes on from there`);
    else if (end.reason === 'deadline')
      this.#output.note(
        green(`the time is up behind step ${end.step} of ${config.steps}, after ${formatSeconds(end.seconds)}`),
      );
    else this.#output.note(green(`done: ${steps}`));
    if (end.model !== null) this.#output.note(`model:  ${bold(end.model)}`);
    this.#output.note(`report: ${path.relative(process.cwd(), report)}`);
  }

  /** Ends the bar; to be called in any case. */
  stop(): void {
    this.#progress?.stop();
    this.#progress = undefined;
  }

  #begin(start: StartRecord): void {
    this.#start = start;
    this.#progress = startProgress({
      title: 'training',
      total: start.steps,
      unit: 'step',
      quiet: this.#output.quiet,
    });
    this.#progress.update(start.resumed_from);
  }

  #step(record: StepRecord): void {
    this.#loss = movingMean(this.#loss, record.loss);
    this.#tokensPerSecond = movingMean(this.#tokensPerSecond, record.tokens_per_second);
    const means = { loss: this.#loss, tokensPerSecond: this.#tokensPerSecond };
    this.#progress?.update(record.step, stepFacts(record, means, this.#start));
    if (record.skipped) this.note(`step ${record.step}: the gradient was not finite, nothing was changed`);
  }
}

/** Single steps jump too much to be read. */
function movingMean(mean: number | undefined, value: number): number {
  return mean === undefined ? value : 0.9 * mean + 0.1 * value;
}

/** What stands behind the bar, the most wanted first. */
function stepFacts(
  record: StepRecord,
  { loss, tokensPerSecond }: { loss: number; tokensPerSecond: number },
  start: StartRecord | undefined,
): Facts {
  const peak = Math.max(...record.ranks.map(({ peak_bytes }) => peak_bytes));
  const plan = start ? ` of ${formatBytes(start.planned.peak_bytes)} planned` : '';
  return {
    loss: formatNumber(loss),
    'tokens/s': formatCount(tokensPerSecond),
    lr: formatNumber(record.lr),
    'memory/rank': `${formatBytes(peak)}${plan}`,
  };
}
