/**
 * The plan: what a rank does in a micro-batch and in a step, as a list, before anything runs.
 *
 * A pure function of the config, the model's order and the world. The executor runs the list op by op, ranks compare its
 * hash before their first collective, and its byte counts are checked against the communicator's.
 */
import { createHash } from 'node:crypto';
import type { UnitUse } from '@ds/nn';
import type { ShardPolicy } from '../partition/policy';
import type { UnitLayout } from '../partition/unit-layout';

export type Phase = 'forward' | 'backward';

export type PlanOp =
  /** Collect a unit's weights from the ranks' shards. */
  | { readonly op: 'gather'; readonly unit: number }
  /** Give the gathered weights back. */
  | { readonly op: 'release'; readonly unit: number }
  /** The model's own work. */
  | { readonly op: 'compute'; readonly use: number; readonly phase: Phase }
  /** Provide the buffer that backward writes into. */
  | { readonly op: 'openGradient'; readonly unit: number }
  /** Sum a unit's gradients over the ranks, each rank keeping its shard. */
  | { readonly op: 'reduce'; readonly unit: number }
  /** Give the buffer back, once the reduction has read it. */
  | { readonly op: 'closeGradient'; readonly unit: number }
  /** Spread the reduced gradient shards to all ranks (stage 0). */
  | { readonly op: 'gatherGradient'; readonly unit: number }
  /** Run the optimizer up to where it needs norms of whole parameters, over what this rank owns (Lamb). */
  | { readonly op: 'moments'; readonly unit: number }
  /** Sum the squares behind those norms over the ranks, of all parameters at once. */
  | { readonly op: 'sumNorms' }
  /** Run the optimizer, or what is left of it, over what this rank owns. */
  | { readonly op: 'update'; readonly unit: number }
  /** Spread the updated weight shards to all ranks (stages 1 and 2). */
  | { readonly op: 'gatherUpdated'; readonly unit: number };

export interface PlanOptions {
  /** Elements that may be gathered ahead of the unit at work. */
  readonly prefetchElements: number;
  /** Prefetching stops where more elements than this would be gathered at once. */
  readonly maxLiveElements: number;
  /** A unit stays gathered when fewer elements than this are needed before its next use. */
  readonly maxReuseDistanceElements: number;
  /** Gradients wait until so many elements can be reduced together; 0 reduces every unit at once. */
  readonly reduceBucketElements: number;
  /** The same for updated weights on their way to all ranks. */
  readonly allgatherBucketElements: number;
  /** Reductions run beside the next unit's backward, whose buffer is then a second one. */
  readonly secondGradientBuffer: boolean;
  /** The optimizer needs the norms of whole parameters. */
  readonly parameterNorms: boolean;
}

export interface PlannedUnit {
  readonly layout: UnitLayout;
  readonly policy: ShardPolicy;
}

export interface Plan {
  readonly units: readonly PlannedUnit[];
  readonly microBatch: readonly PlanOp[];
  /** Forward alone, for evaluation. */
  readonly evaluation: readonly PlanOp[];
  readonly step: readonly PlanOp[];
}

/** One moment at which a unit's weights are read. */
interface Need {
  readonly unit: number;
  readonly at: { readonly use: number; readonly phase: Phase };
}

interface Order {
  readonly uses: readonly UnitUse[];
  readonly unitOf: (use: UnitUse) => number;
}

/** Makes the plan of a rank; all ranks get the same one. */
export function makePlan(units: readonly PlannedUnit[], uses: readonly UnitUse[], options: PlanOptions): Plan {
  const order: Order = { uses, unitOf: (use) => units.findIndex(({ layout }) => layout.unit === use.unit) };
  return {
    units,
    microBatch: planPasses(units, order, options, true),
    evaluation: planPasses(units, order, options, false),
    step: planStep(units, options),
  };
}

/** Forward, and (when training) backward in reverse, with the gathers, releases and reductions around each use. */
function planPasses(units: readonly PlannedUnit[], order: Order, options: PlanOptions, training: boolean): PlanOp[] {
  const computes = [
    ...order.uses.map((use) => ({ use: use.index, phase: 'forward' as const })),
    ...(training ? [...order.uses].reverse().map((use) => ({ use: use.index, phase: 'backward' as const })) : []),
  ];
  const weights = new WeightPlanner(units, needsOf(computes, order), options);
  const gradients = training ? new GradientPlanner(units, order, options) : undefined;
  const ops: PlanOp[] = [];
  for (const compute of computes) {
    ops.push(...weights.before(compute));
    if (gradients) ops.push(...gradients.before(compute));
    ops.push({ op: 'compute', ...compute });
    ops.push(...weights.after(compute));
    if (gradients) ops.push(...gradients.after(compute));
  }
  if (gradients) ops.push(...gradients.rest());
  return ops;
}

function needsOf(computes: readonly { use: number; phase: Phase }[], order: Order): Need[] {
  return computes
    .filter(({ use, phase }) => phase === 'forward' || order.uses[use]!.backwardReadsWeights)
    .map((at) => ({ unit: order.unitOf(order.uses[at.use]!), at }));
}

/** Gathers ahead of each need, and releases after the last one within reach. */
class WeightPlanner {
  readonly #units: readonly PlannedUnit[];
  readonly #needs: readonly Need[];
  readonly #options: PlanOptions;
  readonly #gathered = new Set<number>();
  /** The need that the next compute has, if it has one. */
  #next = 0;

  constructor(units: readonly PlannedUnit[], needs: readonly Need[], options: PlanOptions) {
    this.#units = units;
    this.#needs = needs.filter(({ unit }) => units[unit]!.policy.param === 'dp');
    this.#options = options;
  }

  before(at: { use: number; phase: Phase }): PlanOp[] {
    const ops: PlanOp[] = [];
    const need = this.#needs[this.#next];
    if (need && isAt(need, at)) this.#gather(need.unit, ops);
    this.#prefetch(need && isAt(need, at) ? this.#next + 1 : this.#next, ops);
    return ops;
  }

  after(at: { use: number; phase: Phase }): PlanOp[] {
    const need = this.#needs[this.#next];
    if (!need || !isAt(need, at)) return [];
    this.#next++;
    if (this.#distanceToNextUse(need.unit) <= this.#options.maxReuseDistanceElements) return [];
    this.#gathered.delete(need.unit);
    return [{ op: 'release', unit: need.unit }];
  }

  #gather(unit: number, ops: PlanOp[]): void {
    if (this.#gathered.has(unit)) return;
    this.#gathered.add(unit);
    ops.push({ op: 'gather', unit });
  }

  #prefetch(from: number, ops: PlanOp[]): void {
    let ahead = 0;
    for (const { unit } of this.#needs.slice(from)) {
      ahead += this.#elements(unit);
      const live = [...this.#gathered].reduce((sum, u) => sum + this.#elements(u), 0);
      if (ahead > this.#options.prefetchElements) return;
      if (!this.#gathered.has(unit) && live + this.#elements(unit) > this.#options.maxLiveElements) return;
      this.#gather(unit, ops);
    }
  }

  /** Elements of the needs between now and the unit's next one; Infinity when there is none. */
  #distanceToNextUse(unit: number): number {
    let distance = 0;
    for (const need of this.#needs.slice(this.#next)) {
      if (need.unit === unit) return distance;
      distance += this.#elements(need.unit);
    }
    return Number.POSITIVE_INFINITY;
  }

  #elements(unit: number): number {
    return this.#units[unit]!.layout.elements;
  }
}

/** Opens a unit's gradient before its first writer, and reduces it behind its last, bucket by bucket. */
class GradientPlanner {
  readonly #units: readonly PlannedUnit[];
  readonly #order: Order;
  readonly #options: PlanOptions;
  readonly #open = new Set<number>();
  /** Written, but waiting for the bucket to fill. */
  #waiting: number[] = [];
  /** Being reduced beside the compute that comes next. */
  #reducing: number[] = [];

  constructor(units: readonly PlannedUnit[], order: Order, options: PlanOptions) {
    this.#units = units;
    this.#order = order;
    this.#options = options;
  }

  before({ use, phase }: { use: number; phase: Phase }): PlanOp[] {
    const { gradientIn } = this.#order.uses[use]!;
    const unit = this.#order.unitOf(this.#order.uses[use]!);
    if (gradientIn !== phase || this.#open.has(unit)) return [];
    this.#open.add(unit);
    return [{ op: 'openGradient', unit }];
  }

  after({ use, phase }: { use: number; phase: Phase }): PlanOp[] {
    const ops = this.#close();
    const unit = this.#order.unitOf(this.#order.uses[use]!);
    // The first use in the model's order is the last to run backward.
    const isLastWriter = this.#order.uses.findIndex((u) => u.unit === this.#units[unit]!.layout.unit) === use;
    if (phase !== 'backward' || !isLastWriter) return ops;
    this.#waiting.push(unit);
    const elements = this.#waiting.reduce((sum, u) => sum + this.#units[u]!.layout.elements, 0);
    return elements < this.#options.reduceBucketElements ? ops : [...ops, ...this.#reduce()];
  }

  /** What is left at the end of backward. */
  rest(): PlanOp[] {
    return [...this.#close(), ...this.#reduce(), ...this.#close()];
  }

  #reduce(): PlanOp[] {
    const ops: PlanOp[] = this.#waiting.map((unit) => ({ op: 'reduce', unit }));
    this.#reducing = this.#waiting;
    this.#waiting = [];
    return this.#options.secondGradientBuffer ? ops : [...ops, ...this.#close()];
  }

  #close(): PlanOp[] {
    const ops: PlanOp[] = this.#reducing.map((unit) => ({ op: 'closeGradient', unit }));
    this.#reducing = [];
    return ops;
  }
}

/**
 * The optimizer step: full gradients first where the optimizer is whole, full weights afterwards where they are.
 *
 * With norms of whole parameters it is two passes over the units. All units have one placement of the optimizer; where
 * it is whole, every rank knows the norms.
 */
function planStep(units: readonly PlannedUnit[], options: PlanOptions): PlanOp[] {
  const { allgatherBucketElements, parameterNorms } = options;
  const ops: PlanOp[] = [];
  const gather = (unit: number) => {
    if (units[unit]!.policy.optim === 'none') ops.push({ op: 'gatherGradient', unit });
  };
  if (parameterNorms) {
    units.forEach((_, unit) => {
      gather(unit);
      ops.push({ op: 'moments', unit });
    });
    if (units.some(({ policy }) => policy.optim === 'dp')) ops.push({ op: 'sumNorms' });
  }
  let waiting: number[] = [];
  const spread = () => {
    ops.push(...waiting.map((unit) => ({ op: 'gatherUpdated', unit }) as const));
    waiting = [];
  };
  units.forEach(({ policy }, unit) => {
    if (!parameterNorms) gather(unit);
    ops.push({ op: 'update', unit });
    if (policy.optim === 'dp' && policy.param === 'none') waiting.push(unit);
    if (waiting.reduce((sum, u) => sum + units[u]!.layout.elements, 0) >= allgatherBucketElements) spread();
  });
  spread();
  return ops;
}

function isAt(need: Need, at: { use: number; phase: Phase }): boolean {
  return need.at.use === at.use && need.at.phase === at.phase;
}

/** What ranks compare before their first collective: order, names and sizes of everything. */
export function planHash(plan: Plan): string {
  const units = plan.units.map(({ layout, policy }) => ({
    name: layout.unit.name,
    parameters: layout.places.map(({ parameter }) => [parameter.name, parameter.shape]),
    shard: layout.shardElements,
    policy,
  }));
  return createHash('sha256')
    .update(JSON.stringify([units, plan.microBatch, plan.step]))
    .digest('hex');
}

/** Spells a plan op for people: "gather h.3", "forward h.3". */
export function planOpText(plan: Plan, uses: readonly UnitUse[], op: PlanOp): string {
  if (op.op === 'compute') return `${op.phase} ${uses[op.use]!.unit.name}`;
  if (op.op === 'sumNorms') return op.op;
  return `${op.op} ${plan.units[op.unit]!.layout.unit.name}`;
}
