/** The learning-rate schedules a run can name, with every parameter resolved. Plain data: checked by `config`, drawn by `lr-schedule`. */

/** Shape of the warm-up: `log` rises as ln(i+1)/ln(W), `linear` as i/W (i completed scheduler steps − 1, W warm-up steps). */
export type WarmupType = 'log' | 'linear';

/** Rises from `minLr` to `maxLr` over `warmupSteps`, then stays. */
export interface WarmupLrConfig {
  readonly type: 'WarmupLR';
  readonly minLr: number;
  readonly maxLr: number;
  readonly warmupSteps: number;
  readonly warmupType: WarmupType;
}

/** Rises from `minLr` to `maxLr` over `warmupSteps`, then falls in a straight line to `minLr` at `totalSteps`. */
export interface WarmupDecayLrConfig {
  readonly type: 'WarmupDecayLR';
  readonly minLr: number;
  readonly maxLr: number;
  readonly warmupSteps: number;
  readonly warmupType: WarmupType;
  readonly totalSteps: number;
}

/** Rises from `peakLr·warmupMinRatio` to `peakLr`, then falls along half a cosine to `peakLr·cosMinRatio` at `totalSteps`. */
export interface WarmupCosineLrConfig {
  readonly type: 'WarmupCosineLR';
  readonly peakLr: number;
  readonly warmupMinRatio: number;
  readonly cosMinRatio: number;
  readonly warmupSteps: number;
  readonly warmupType: WarmupType;
  readonly totalSteps: number;
}

/** Momentum (β1) that moves against the learning rate of {@link OneCycleConfig}. β2 is left to the optimizer. */
export interface OneCycleMomentum {
  readonly min: number;
  readonly max: number;
  readonly decayRate: number;
}

/** One rise and one fall between `minLr` and `maxLr`, then an optional decay below `minLr`. */
export interface OneCycleConfig {
  readonly type: 'OneCycle';
  readonly minLr: number;
  readonly maxLr: number;
  readonly firstSteps: number;
  readonly secondSteps: number;
  /** Stairs in each half; 0 is a continuous slope. */
  readonly firstStairs: number;
  readonly secondStairs: number;
  /** Steps per unit of decay after the cycle; 0 means no decay. */
  readonly decaySteps: number;
  readonly decayRate: number;
  /** null when β1 is not cycled. */
  readonly momentum: OneCycleMomentum | null;
}

/** Grows without end from `minLr`, by `stepRate` times `minLr` every `stepSize` steps, to find where training diverges. */
export interface LrRangeTestConfig {
  readonly type: 'LRRangeTest';
  readonly minLr: number;
  readonly stepSize: number;
  readonly stepRate: number;
  readonly staircase: boolean;
}

/** Megatron's annealing by consumed samples, with which BLOOM was trained; not one of DeepSpeed's. */
export interface MegatronLrConfig {
  readonly type: 'MegatronLR';
  readonly peakLr: number;
  readonly minLr: number;
  readonly warmupSamples: number;
  /** Samples at which `minLr` is reached, warm-up included. */
  readonly decaySamples: number;
  readonly decayStyle: 'cosine' | 'linear' | 'constant';
  /** Samples one optimizer step consumes: the global batch. */
  readonly samplesPerStep: number;
}

export type ScheduleConfig =
  | WarmupLrConfig
  | WarmupDecayLrConfig
  | WarmupCosineLrConfig
  | OneCycleConfig
  | LrRangeTestConfig
  | MegatronLrConfig;
