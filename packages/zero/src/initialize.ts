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
import { planMemory } from './plan/plan-memory';

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
 * The config's `sparse_attention` is set on the model; without that section the model keeps what it has.
 * @throws ConfigError with everything that is wrong in the config; UNSUPPORTED for `sparse_attention` with a model that does not know it; COMM when the ranks' plans differ
 */
export async function initialize(options: InitializeOptions): Promise<ZeroEngine> {
  const { model, decayGroups = 'all' } = options;
  const group = options.group ?? (await ProcessGroup.fromEnvironment());
  const device = deviceOf(options.device ?? 'cpu');
  const config = isResolved(options.config)
    ? options.config
    : parseDeepSpeedConfig(options.config, { world: group.size });
  setSparseAttention(model, config);
  const plan = planFor(model, config);
  await expectSamePlan(plan, group);
  const engine = new ZeroEngine({ model, config, plan, group, device, decayGroups });
  await engine.initializeWeights(options.weights);
  return engine;
}

function setSparseAttention(model: TrainableModel, { sparseAttention }: DeepSpeedConfig): void {
  if (sparseAttention === null) return;
  if (!('sparseAttention' in model))
    throw new DsError({
      code: 'UNSUPPORTED',
      op: 'initialize',
      expected: 'a model that can attend by blocks',
      actual: `sparse_attention (mode ${sparseAttention.mode}) for one without a property sparseAttention`,
      hint: "remove sparse_attention from the config, or let the model use @ds/nn's LayoutCache and attentionBlock",
    });
  model.sparseAttention = sparseAttention;
}

/** Makes the plan of a config for a model. Pure: nothing is allocated. */
export function planFor(model: Pick<TrainableModel, 'units' | 'uses'>, config: DeepSpeedConfig): Plan {
  const { stage, overlapComm } = config.zero;
  if (stage === 0 || !overlapComm) return planAtStage(model, config, stage, plain);
  // Room for looking ahead is taken only where the stage below would need it too: a higher stage never costs more.
  const below = memoryOf(planAtStage(model, config, (stage - 1) as ZeroStage, plain), config);
  const plans = overlaps.map((overlap) => planAtStage(model, config, stage, overlap));
  const fits = (plan: Plan) => memoryOf(plan, config).every((bytes, i) => bytes <= below[i]!);
  return plans.find(fits) ?? plans.at(-1)!;
}

interface Overlap {
  readonly prefetch: boolean;
  readonly secondGradientBuffer: boolean;
}

const plain: Overlap = { prefetch: false, secondGradientBuffer: false };

/** From the one that hides most to the one that holds least. */
const overlaps: readonly Overlap[] = [
  { prefetch: true, secondGradientBuffer: true },
  { prefetch: true, secondGradientBuffer: false },
  { prefetch: false, secondGradientBuffer: true },
  plain,
];

function planAtStage(
  model: Pick<TrainableModel, 'units' | 'uses'>,
  { zero, world, optimizer }: DeepSpeedConfig,
  stage: ZeroStage,
  overlap: Overlap,
): Plan {
  const layouts = model.units.map((unit) => layoutUnit(unit, world));
  const threshold = resolve(zero.persistenceThresholdElements, 0);
  const whole = unitsBetterWhole(layouts, world);
  const units = layouts.map((layout) => ({ layout, policy: policyOf(layout, stage, whole, threshold) }));
  // One block ahead hides its gather behind the block at work; the embedding is too large to hold early.
  const elements = layouts.map((layout) => layout.elements).sort((a, b) => a - b);
  const median = elements[Math.floor(elements.length / 2)] ?? 0;
  return makePlan(units, model.uses, {
    prefetchElements: resolve(zero.prefetchElements, overlap.prefetch ? median : 0),
    maxLiveElements: resolve(zero.maxLiveElements, Number.POSITIVE_INFINITY),
    maxReuseDistanceElements: resolve(zero.maxReuseDistanceElements, -1),
    reduceBucketElements: resolve(zero.reduceBucketElements, 0),
    allgatherBucketElements: resolve(zero.allgatherBucketElements, 0),
    secondGradientBuffer: overlap.secondGradientBuffer,
    parameterNorms: optimizer.type === 'Lamb',
  });
}

/**
 * Finds the units that cutting would make dearer: one that is larger than all other cut ones N-1 times over takes more
 * room while it is at work than all shards together save.
 */
function unitsBetterWhole(layouts: readonly UnitLayout[], world: number): ReadonlySet<UnitLayout> {
  const whole = new Set<UnitLayout>();
  let rest = layouts.reduce((sum, { elements }) => sum + elements, 0);
  for (const layout of [...layouts].sort((a, b) => b.elements - a.elements)) {
    rest -= layout.elements;
    if (layout.elements <= (world - 1) * rest) break;
    whole.add(layout);
  }
  return whole;
}

/** The stage's row, but for units that stay whole. */
function policyOf(
  layout: UnitLayout,
  stage: ZeroStage,
  whole: ReadonlySet<UnitLayout>,
  persistenceThreshold: number,
): ShardPolicy {
  // One rank's part is everything.
  if (layout.world === 1) return stagePolicies[0];
  if (stage > 1 && whole.has(layout)) return stagePolicies[1];
  return stage === 3 && layout.elements < persistenceThreshold ? stagePolicies[2] : stagePolicies[stage];
}

function memoryOf(plan: Plan, { paramDtype, gradDtype, batch }: DeepSpeedConfig): number[] {
  const bytes = (precision: 'fp32' | 'bf16') => (precision === 'bf16' ? 2 : 4);
  const { accumulation } = batch;
  return planMemory(plan, { paramBytes: bytes(paramDtype), gradBytes: bytes(gradDtype), accumulation });
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
