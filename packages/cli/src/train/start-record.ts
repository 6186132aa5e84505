/** The first line of a run: what is trained, how, and what the plan promises. */
import os = require('node:os');

import { bloomParameterCount } from '@ds/nn';
import type { TrainConfig } from '@ds/zero';
import type { PlanNumbers } from '../plan/null-run';
import { thinTimeline } from './memory-watch';
import type { ModelSource } from './model';
import type { StartRecord } from './records';

export interface StartFacts {
  readonly config: TrainConfig;
  readonly model: ModelSource;
  readonly sequenceLength: number;
  readonly resumedFrom: number;
  readonly planned: PlanNumbers;
}

export function startRecord({ config, model, sequenceLength, resumedFrom, planned }: StartFacts): StartRecord {
  const { deepspeed } = config;
  return {
    type: 'start',
    at: new Date().toISOString(),
    resumed_from: resumedFrom,
    steps: config.steps,
    parameters: bloomParameterCount(model.config),
    model: model.name,
    world: config.world,
    stage: deepspeed.zero.stage,
    param_dtype: deepspeed.paramDtype,
    grad_dtype: deepspeed.gradDtype,
    global_batch: deepspeed.batch.global,
    micro_batch: deepspeed.batch.micro,
    accumulation: deepspeed.batch.accumulation,
    sequence_length: sequenceLength,
    device: config.device,
    machine: describeMachine(),
    planned: {
      model_state_bytes: planned.modelStateBytes,
      peak_bytes: planned.peakBytes,
      bytes_sent_per_step: planned.bytesSent,
      timeline: thinTimeline(planned.timeline),
    },
  };
}

function describeMachine(): string {
  const cpus = os.cpus();
  return `${cpus[0]?.model.trim() ?? os.arch()}, ${cpus.length} cores, Node ${process.versions.node}`;
}
