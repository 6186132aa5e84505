/** The lines of a run's metrics.jsonl. Those of type "step" are what `ds train --json` prints. */

/** What one rank holds, from the account of its device. */
export interface RankMemory {
  readonly rank: number;
  readonly live_bytes: number;
  readonly peak_bytes: number;
  readonly model_state_bytes: number;
}

export interface StepRecord {
  readonly type: 'step';
  /** Optimizer steps taken, this one included. */
  readonly step: number;
  /** Mean over the global batch, before the step. */
  readonly loss: number;
  /** Over all parameters, before clipping. */
  readonly grad_norm: number;
  readonly lr: number;
  /** Of all ranks together, since the step before. */
  readonly tokens_per_second: number;
  /** Sent by this rank in this step. */
  readonly bytes_sent: number;
  readonly model_state_bytes: number;
  readonly peak_bytes: number;
  readonly rank: number;
  /** The gradient was not finite: the weights are as before. */
  readonly skipped: boolean;
  readonly seconds: number;
  readonly ranks: readonly RankMemory[];
}

export interface ValidationRecord {
  readonly type: 'validation';
  readonly step: number;
  readonly loss: number;
  /** Where the data is text: loss in bits by the bytes that its tokens stand for. */
  readonly bits_per_byte: number | null;
}

/** Bytes by owner at one point of the plan. */
export interface MemoryMoment {
  /** As people read it: "gather h.3". */
  readonly at: string;
  readonly bytes: Readonly<Record<string, number>>;
}

/** What the plan promises for one rank. */
export interface PlannedRun {
  readonly model_state_bytes: number;
  readonly peak_bytes: number;
  readonly bytes_sent_per_step: number;
  readonly timeline: readonly MemoryMoment[];
}

export interface StartRecord {
  readonly type: 'start';
  /** ISO 8601 */
  readonly at: string;
  /** Steps that a checkpoint brought along. */
  readonly resumed_from: number;
  readonly steps: number;
  readonly parameters: number;
  readonly model: string;
  readonly world: number;
  readonly stage: number;
  readonly param_dtype: string;
  readonly grad_dtype: string;
  readonly global_batch: number;
  readonly micro_batch: number;
  readonly accumulation: number;
  readonly sequence_length: number;
  readonly device: string;
  readonly machine: string;
  readonly planned: PlannedRun;
}

/** How one rank's memory went through one step. */
export interface TimelineRecord {
  readonly type: 'timeline';
  readonly step: number;
  readonly rank: number;
  readonly timeline: readonly MemoryMoment[];
}

export interface CheckpointRecord {
  readonly type: 'checkpoint';
  readonly step: number;
  readonly path: string;
  readonly seconds: number;
}

/** A text that the trained model wrote. */
export interface SampleRecord {
  readonly type: 'sample';
  readonly prompt: string;
  readonly text: string;
  readonly tokens_per_second: number;
}

export interface EndRecord {
  readonly type: 'end';
  readonly step: number;
  readonly reason: 'done' | 'stopped' | 'deadline';
  readonly seconds: number;
  /** The Hugging Face folder; null where the run was stopped. */
  readonly model: string | null;
}

export type RunRecord =
  | StartRecord
  | StepRecord
  | ValidationRecord
  | TimelineRecord
  | CheckpointRecord
  | SampleRecord
  | EndRecord;
