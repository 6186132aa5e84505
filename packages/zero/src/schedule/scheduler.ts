/** The counter beside a pure schedule: how many optimizer steps are completed. This is what a checkpoint keeps. */
import { DsError } from '@ds/core-native';
import { createLrSchedule, type LrSchedule } from './lr-schedule';
import type { ScheduleConfig } from './schedule-config';

/** What a checkpoint keeps of a scheduler. The curve itself comes from the config, so a resumed run may be given another one. */
export interface SchedulerState {
  readonly type: LrSchedule['type'];
  readonly completedSteps: number;
}

/** Walks along a schedule. A step that was skipped for a non-finite gradient is not counted, so that it costs no learning rate. */
export class Scheduler {
  readonly schedule: LrSchedule;
  #completedSteps = 0;

  /**
   * @param config the resolved schedule; null keeps the learning rate constant
   * @param constantLr that constant
   */
  constructor(config: ScheduleConfig | null, constantLr: number) {
    this.schedule = createLrSchedule(config, constantLr);
  }

  get completedSteps(): number {
    return this.#completedSteps;
  }

  /** Gives the learning rate of the coming step, or of the step after `completedSteps`. */
  lr(completedSteps: number = this.#completedSteps): number {
    return this.schedule.lr(completedSteps);
  }

  /** Gives β1 of the coming step, or null where the optimizer's own stays. */
  beta1(completedSteps: number = this.#completedSteps): number | null {
    return this.schedule.beta1(completedSteps);
  }

  /** Counts one completed optimizer step. */
  advance(): void {
    this.#completedSteps++;
  }

  state(): SchedulerState {
    return { type: this.schedule.type, completedSteps: this.#completedSteps };
  }

  /**
   * Goes on where a saved scheduler stood. The kind of schedule may differ from the saved one: the new config's curve is entered at the saved step.
   *
   * @throws DsError CHECKPOINT when the count is not a whole number ≥ 0
   */
  load(state: SchedulerState): void {
    if (!Number.isSafeInteger(state.completedSteps) || state.completedSteps < 0) {
      throw new DsError({
        code: 'CHECKPOINT',
        op: 'scheduler.load',
        expected: 'completedSteps to be an integer ≥ 0',
        actual: String(state.completedSteps),
        hint: 'The checkpoint is damaged; load an earlier one.',
      });
    }
    this.#completedSteps = state.completedSteps;
  }
}
