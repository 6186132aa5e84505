/** Memory and traffic by formula: what `ds plan --params` prints, and what plans and runs are measured against. */
export {
  activationCheckpointBytes,
  activationElements,
  activationWorkingBytes,
  type BlockShape,
  type CheckpointQuery,
  type EfficiencyQuery,
  modelStateWorkingBytes,
  type OffloadedState,
  partitionedActivationTraffic,
  transferEfficiency,
  transformerParams,
  type WorkingMemoryQuery,
} from './activations';
export {
  adamBytesPerParam,
  type BytesPerParam,
  bf16AdamFp32Grads,
  fp32Adam,
  type HpzQuery,
  hpzModelStateBytes,
  lionBytesPerParam,
  type MaxParamsQuery,
  type ModelStateBytes,
  type ModelStateQuery,
  maxParams,
  mixedPrecisionAdam,
  modelStateBytes,
  type ZeroStage,
} from './model-states';
export {
  stepTraffic,
  type Traffic,
  type TrafficQuery,
  type ZeroPlusPlusQuery,
  zeroPlusPlusInterNodeBytes,
} from './traffic';
export { printTable1Gigabytes, type Table1Cell, type Table2Row, zeroTable1, zeroTable2 } from './zero-tables';
