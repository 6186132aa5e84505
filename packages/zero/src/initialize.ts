/** The door of the package: a model and a DeepSpeed config in, an engine out. */
import { type Device, type DeviceName, DsError, device as deviceOf, ProcessGroup } from '@ds/core-native';
import { type DeepSpeedConfig, parseDeepSpeedConfig } from './config';
import { type TrainableModel, ZeroEngine } from './engine/engine';
import type { WeightSource } from './engine/initial-weights';
import type { DecayGroups } from './engine/optimizer';
import type { ZeroStage } from './estimate';
import { type ShardPolicy, stagePolicies } from './partition/policy';
import { layoutUnit, type UnitLayout } from './partition/unit-layout';
import { makePlan, type Plan, planHash } from './plan/plan';

export interface InitializeOptions {
  model: TrainableModel;
  /** DeepSpeed's JSON as text or object, or a config that was resolved already. */
  config: string | object | DeepSpeedConfig;
  /** Default: what the launcher's environment says; one rank without a launcher. */
  group?: ProcessGroup;
  /** Default `cpu`. */
  device?: DeviceName | Device;
  /** Weights from files, instead of first ones drawn with the config's seed. */
  weights?: WeightSource;
  /** Default `all`, as in DeepSpeed. */
  decayGroups?: DecayGroups;
}

/**
 * Makes a training engine whose model states are cut over the ranks as the config's stage says.
 *
 * @throws ConfigError with everything that is wrong in the config; COMM when the ranks' plans differ
 */
export async function initialize(options: InitializeOptions): Promise<ZeroEngine> {
  const { model, decayGroups = 'all' } = options;
  const group = options.group ?? (await ProcessGroup.fromEnvironment());
  const device = deviceOf(options.device ?? 'cpu');
  const config = isResolved(options.config)
    ? options.config
    : parseDeepSpeedConfig(options.config, { world: group.size });
  const plan = planFor(model, config);
  await expectSamePlan(plan, group);
  const engine = new ZeroEngine({ model, config, plan, group, device, decayGroups });
  await engine.initializeWeights(options.weights);
  return engine;
}

/** Makes the plan of a config for a model. Pure: nothing is allocated. */
export function planFor(model: Pick<TrainableModel, 'units' | 'uses'>, config: DeepSpeedConfig): Plan {
  const { zero, world } = config;
  const layouts = model.units.map((unit) => layoutUnit(unit, world));
  const all = layouts.reduce((sum, layout) => sum + layout.elements, 0);
  const threshold = resolve(zero.persistenceThresholdElements, 0);
  const units = layouts.map((layout) => ({ layout, policy: policyOf(layout, all, zero.stage, threshold) }));
  // Looking one block ahead hides its gather behind the block at work; the embedding is too large to hold early.
  const elements = units.map(({ layout }) => layout.elements).sort((a, b) => a - b);
  const median = elements[Math.floor(elements.length / 2)] ?? 0;
  return makePlan(units, model.uses, {
    prefetchElements: resolve(zero.prefetchElements, zero.overlapComm ? median : 0),
    maxLiveElements: resolve(zero.maxLiveElements, Number.POSITIVE_INFINITY),
    maxReuseDistanceElements: resolve(zero.maxReuseDistanceElements, -1),
    reduceBucketElements: resolve(zero.reduceBucketElements, 0),
    allgatherBucketElements: resolve(zero.allgatherBucketElements, 0),
    overlap: zero.overlapComm,
  });
}

/** The stage's row, but for units that cutting would make dearer. */
function policyOf({ elements, world }: UnitLayout, all: number, stage: ZeroStage, threshold: number): ShardPolicy {
  // One rank's part is everything.
  if (world === 1) return stagePolicies[0];
  // A unit larger than all others N-1 times over takes more room when it is gathered than all shards save.
  const dominates = elements > (world - 1) * (all - elements);
  return stage === 3 && (elements < threshold || dominates) ? stagePolicies[2] : stagePolicies[stage];
}

async function expectSamePlan(plan: Plan, group: ProcessGroup): Promise<void> {
  const hashes = await group.exchange(planHash(plan));
  const other = hashes.findIndex((hash) => hash !== hashes[0]);
  if (other === -1) return;
  throw new DsError({
    code: 'COMM',
    op: 'initialize',
    expected: 'the same plan on all ranks',
    actual: `another one on rank ${other} than on rank 0`,
    hint: 'model, config and world size must be the same on every rank',
  });
}

function resolve(value: number | 'auto', automatic: number): number {
  return value === 'auto' ? automatic : value;
}

function isResolved(config: InitializeOptions['config']): config is DeepSpeedConfig {
  return typeof config === 'object' && Object.isFrozen(config) && 'paramDtype' in config;
}
