/**
 * Runs a plan: between the model's computations it gathers, releases and reduces, on a stream of its own where
 * communication overlaps. Every buffer is made and given back in the order of the plan, with an event where one stream
 * must not run ahead of the other; timing decides nothing.
 */
import { type Device, DsError, type Event, type ProcessGroup, type Stream, type Tensor } from '@ds/core-native';
import type { UnitObserver, UnitUse } from '@ds/nn';
import type { UnitStorage } from '../partition/unit-storage';
import { type Phase, type Plan, type PlanOp, planOpText } from '../plan/plan';

export interface ExecutorOptions {
  readonly plan: Plan;
  readonly uses: readonly UnitUse[];
  readonly storages: readonly UnitStorage[];
  readonly group: ProcessGroup;
  readonly device: Device;
  readonly overlap: boolean;
  /** Runs the optimizer over what this rank owns of a unit. */
  readonly update: (storage: UnitStorage) => void;
  /** Runs the optimizer up to where it needs the norms, for one that does. */
  readonly moments: (storage: UnitStorage) => void;
  /** What is summed over the ranks for them. */
  readonly norms: Tensor | undefined;
  /** Hears of every op of the plan once it is queued; for timelines. */
  readonly onOp: (op: PlanOp) => void;
}

export class Executor implements UnitObserver {
  readonly #o: ExecutorOptions;
  readonly #communication: Stream;
  /** When a unit's weights will have arrived. */
  readonly #arrived = new Map<number, Event>();
  /** When a unit's gradient will have been read by the reduction. */
  readonly #reduced = new Map<number, Event>();
  #ops: readonly PlanOp[] = [];
  #cursor = 0;
  #accumulate = false;

  constructor(options: ExecutorOptions) {
    this.#o = options;
    this.#communication = options.overlap ? options.device.createStream() : options.device.defaultStream;
  }

  /** Starts a pass over the model. `accumulate`: reduced gradients are added to those of the step's earlier micro-batches. */
  begin(pass: 'microBatch' | 'evaluation', accumulate = false): void {
    if (this.#cursor < this.#ops.length)
      this.#wrongOrder('the end of the earlier pass (call backward before the next forward)');
    this.#ops = this.#o.plan[pass];
    this.#cursor = 0;
    this.#accumulate = accumulate;
  }

  /** Runs what is left of the pass. */
  end(): void {
    this.#runUntil((op) => op.op === 'compute');
    if (this.#cursor < this.#ops.length) this.#wrongOrder('the end of the pass');
  }

  /** Runs the plan of the optimizer step. */
  step(): void {
    for (const op of this.#o.plan.step) {
      this.#execute(op);
      this.#o.onOp(op);
    }
  }

  /** Spreads the weights that ranks own to where they are whole, outside a step: after loading or initialising. */
  spreadWeights(): void {
    for (const op of this.#o.plan.step) if (op.op === 'gatherUpdated') this.#execute(op);
  }

  /** Queues a collective in the one order that all ranks share; what is computed afterwards waits for it. */
  communicate(fn: () => void): void {
    this.#o.device.defaultStream.wait(this.#communicate(fn));
  }

  /** Runs `fn` while the unit's whole weights are at hand. */
  withGathered<T>(unit: number, fn: (storage: UnitStorage) => T): T {
    const storage = this.#o.storages[unit]!;
    const sharded = storage.policy.param === 'dp';
    if (sharded) this.#execute({ op: 'gather', unit });
    this.#awaitWeights(unit);
    try {
      return fn(storage);
    } finally {
      if (sharded) this.#execute({ op: 'release', unit });
    }
  }

  beforeForward(use: UnitUse): void {
    this.#advance(use, 'forward');
  }
  afterForward(): void {
    this.#settle();
  }
  beforeBackward(use: UnitUse): void {
    this.#advance(use, 'backward');
  }
  afterBackward(): void {
    this.#settle();
  }

  /** Runs the plan up to the computation that the model is about to start. */
  #advance(use: UnitUse, phase: Phase): void {
    this.#runUntil((op) => op.op === 'compute');
    const op = this.#ops[this.#cursor];
    if (op?.op !== 'compute' || op.use !== use.index || op.phase !== phase)
      this.#wrongOrder(`${phase} ${use.unit.name}`);
    this.#cursor++;
    this.#awaitWeights(this.#unitIndex(use));
  }

  /** Runs what follows a computation; what prepares the next one waits until the model is there. */
  #settle(): void {
    this.#o.onOp(this.#ops[this.#cursor - 1]!);
    this.#runUntil((op) => op.op === 'compute' || op.op === 'gather' || op.op === 'openGradient');
  }

  #runUntil(stop: (op: PlanOp) => boolean): void {
    for (let op = this.#ops[this.#cursor]; op && !stop(op); op = this.#ops[this.#cursor]) {
      this.#execute(op);
      this.#o.onOp(op);
      this.#cursor++;
    }
  }

  #execute(op: PlanOp): void {
    if (op.op === 'compute') return;
    const { group, device } = this.#o;
    if (op.op === 'sumNorms') {
      const norms = this.#o.norms!;
      this.communicate(() => group.allReduce(norms, norms));
      return;
    }
    const storage = this.#o.storages[op.unit]!;
    switch (op.op) {
      case 'gather': {
        const full = storage.openGathered();
        this.#arrived.set(
          op.unit,
          this.#communicate(() => group.allGather(full, storage.paramShard)),
        );
        return;
      }
      case 'release':
        storage.closeGathered();
        return;
      case 'openGradient':
        storage.openGradient();
        return;
      case 'reduce': {
        storage.fillMissingGradients();
        const shard = storage.openGradShard();
        const reduce = () =>
          group.reduceScatter(shard, storage.fullGrad!, {
            scale: 1 / group.size,
            accumulate: this.#accumulate,
          });
        this.#reduced.set(op.unit, this.#communicate(reduce));
        return;
      }
      case 'closeGradient':
        device.defaultStream.wait(this.#reduced.get(op.unit)!);
        storage.closeGradient();
        return;
      case 'gatherGradient':
        this.communicate(() => group.allGather(storage.fullGrad!, storage.gradShard));
        return;
      case 'moments':
        this.#o.moments(storage);
        return;
      case 'update':
        this.#o.update(storage);
        return;
      case 'gatherUpdated': {
        const spread = () => group.allGather(storage.fullParam!, storage.paramShard);
        this.#arrived.set(op.unit, this.#communicate(spread));
        return;
      }
    }
  }

  /** Queues communication behind everything computed so far, and says when it will be over. */
  #communicate(fn: () => void): Event {
    const { device } = this.#o;
    this.#communication.wait(device.defaultStream.record());
    device.withStream(this.#communication, fn);
    return this.#communication.record();
  }

  #awaitWeights(unit: number): void {
    const arrived = this.#arrived.get(unit);
    if (arrived) this.#o.device.defaultStream.wait(arrived);
    this.#arrived.delete(unit);
  }

  #unitIndex(use: UnitUse): number {
    return this.#o.plan.units.findIndex(({ layout }) => layout.unit === use.unit);
  }

  #wrongOrder(wanted: string): never {
    const op = this.#ops[this.#cursor];
    throw new DsError({
      code: 'INTERNAL',
      op: 'plan',
      expected: op ? planOpText(this.#o.plan, this.#o.uses, op) : 'the end of the pass',
      actual: wanted,
      hint: 'the model must use its units in the order of `uses`, and every forward needs its backward',
    });
  }
}
