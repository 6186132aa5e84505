/** Learning-rate schedules: what they are, what they give at each step, and the counter a checkpoint keeps. */
export { createLrSchedule, type LrSchedule, megatronLr } from './lr-schedule';
export type {
  LrRangeTestConfig,
  MegatronLrConfig,
  OneCycleConfig,
  OneCycleMomentum,
  ScheduleConfig,
  WarmupCosineLrConfig,
  WarmupDecayLrConfig,
  WarmupLrConfig,
  WarmupType,
} from './schedule-config';
export { Scheduler, type SchedulerState } from './scheduler';
