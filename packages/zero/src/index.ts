/** @ds/zero: train with model states cut over ranks. Knows no model by name. */
export { CheckpointReader } from './checkpoint/checkpoint-reader';
export { type CheckpointManifest, type StateName, stateNames } from './checkpoint/layout';
export { loadCheckpoint } from './checkpoint/load';
export { saveCheckpoint } from './checkpoint/save';
export * from './config';
export { type MicroBatch, type StepReport, type TrainableModel, ZeroEngine } from './engine/engine';
export type { WeightSource } from './engine/initial-weights';
export type { DecayGroups } from './engine/optimizer';
export * from './estimate';
export { type InitializeOptions, initialize, planFor } from './initialize';
export { type ShardPolicy, stagePolicies } from './partition/policy';
export { layoutUnit, type ShardRange, shardRanges, type UnitLayout } from './partition/unit-layout';
export { modelStateOwners, owners, UnitStorage } from './partition/unit-storage';
export { makePlan, type Plan, type PlanOp, planHash, planOpText } from './plan/plan';
export { type ElementSizes, planMemory } from './plan/plan-memory';
export { planTraffic } from './plan/traffic';
export * from './schedule';
