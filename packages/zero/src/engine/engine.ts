/**
 * The training engine: forward, backward, step.
 *
 * What is special about a ZeRO stage stands in the plan and in the storages; the algorithm below is that of plain data
 * parallel training.
 */
import { type Device, DsError, dtypeBytes, keep, type ProcessGroup, scope, Tensor, withOwner } from '@ds/core-native';
import { type SparsityConfig, Tape, type Unit, type UnitUse, withObserver } from '@ds/nn';
import type { DeepSpeedConfig } from '../config';
import { modelStateOwners, owners, UnitStorage } from '../partition/unit-storage';
import type { Plan, PlanOp } from '../plan/plan';
import { planTraffic } from '../plan/traffic';
import { Scheduler } from '../schedule';
import { ElementwiseOptimizer } from './elementwise-optimizer';
import { Executor } from './executor';
import { type WeightSource, writeInitialWeights } from './initial-weights';
import { LambOptimizer } from './lamb-optimizer';
import type { DecayGroups, Optimizer, OptimizerStep } from './optimizer';
import { StepMetrics } from './step-metrics';

/** What the engine must know of a model: its units, their order, and how to get losses [R] from a batch. */
export interface TrainableModel {
  readonly units: readonly Unit[];
  readonly uses: readonly UnitUse[];
  /** Models that can attend by blocks have it; `initialize` sets what the config says. */
  sparseAttention?: SparsityConfig | undefined;
  loss(batch: { ids: Tensor; targets: Tensor; scale: number; mask?: Tensor; dropoutSeed?: number }): Tensor;
}

/** One rank's share of a step's work: B samples of T tokens. */
export interface MicroBatch {
  /** B rows of T + 1 tokens: each predicts its successor. */
  readonly rows: readonly ArrayLike<number>[];
}

export interface StepReport {
  /** Steps taken so far, this one included. */
  readonly step: number;
  /** Mean loss over the global batch, before the update. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  /** The gradient was not finite: nothing was updated. */
  readonly skipped: boolean;
  /** Sent by this rank since the last step. */
  readonly bytesSent: number;
}

export interface EngineParts {
  readonly model: TrainableModel;
  readonly config: DeepSpeedConfig;
  readonly plan: Plan;
  readonly group: ProcessGroup;
  readonly device: Device;
  readonly decayGroups: DecayGroups;
}

/** Steps without a finite gradient after which training ends. */
const maxSkippedInARow = 5;

export class ZeroEngine implements Disposable {
  readonly config: DeepSpeedConfig;
  readonly plan: Plan;
  readonly group: ProcessGroup;
  readonly device: Device;
  readonly scheduler: Scheduler;
  /** In the order of the model's units; for checkpoints and export. */
  readonly storages: readonly UnitStorage[];
  /** Hears of every op of the plan once it is queued; for timelines of memory. */
  onOp: ((op: PlanOp) => void) | undefined;
  readonly #model: TrainableModel;
  readonly #optimizer: Optimizer;
  readonly #executor: Executor;
  readonly #metrics: StepMetrics;
  readonly #tape = new Tape();
  #micro = 0;
  #stepsTaken = 0;
  #skippedInARow = 0;
  #bytesSentBefore = 0;

  constructor(parts: EngineParts) {
    const { model, config, plan, group, device } = parts;
    this.config = config;
    this.plan = plan;
    this.group = group;
    this.device = device;
    this.#model = model;
    this.#optimizer =
      config.optimizer.type === 'Lamb'
        ? new LambOptimizer(config.optimizer, parts.decayGroups, plan, device)
        : new ElementwiseOptimizer(config.optimizer, parts.decayGroups);
    this.scheduler = new Scheduler(config.scheduler, config.optimizer.lr);
    const options = {
      rank: group.rank,
      device,
      paramDtype: config.paramDtype === 'bf16' ? 'bf16' : 'f32',
      gradDtype: config.gradDtype === 'bf16' ? 'bf16' : 'f32',
      accumulation: config.batch.accumulation,
      moments: config.optimizer.type === 'Lion' ? 1 : 2,
    } as const;
    this.storages = plan.units.map(({ layout, policy }) => new UnitStorage(layout, policy, options));
    this.#metrics = new StepMetrics(plan.units.length, device);
    this.#executor = new Executor({
      plan,
      uses: model.uses,
      storages: this.storages,
      group,
      device,
      overlap: config.zero.overlapComm,
      update: (storage) => this.#optimizer.update(storage, this.#optimizerStep()),
      moments: (storage) => this.#optimizer.moments!(storage, this.#optimizerStep()),
      norms: this.#optimizer.norms,
      onOp: (op) => this.onOp?.(op),
    });
  }

  /** Steps taken so far; skipped ones do not count. */
  get stepsTaken(): number {
    return this.#stepsTaken;
  }

  /** Puts first weights in place, on every rank only what it owns. */
  async initializeWeights(source?: WeightSource): Promise<void> {
    for (const storage of this.storages) {
      writeInitialWeights(storage, this.config.seed, source);
      // What is queued holds what it writes: one unit at a time, so that it never is the model.
      if (source) await this.device.defaultStream.join();
    }
    this.#executor.spreadWeights();
    await this.device.defaultStream.join();
  }

  /**
   * Computes the losses [B*T] f32 of one micro-batch and remembers what backward needs. The caller owns the tensor.
   * @throws SHAPE for rows of different lengths
   */
  forward(batch: MicroBatch): Tensor {
    const { accumulation } = this.config.batch;
    this.#executor.begin('microBatch', this.#micro > 0);
    const losses = this.#losses(batch, (inputs) =>
      this.#tape.run(() =>
        this.#model.loss({
          ...inputs,
          scale: 1 / (inputs.targets.numel * accumulation),
          dropoutSeed: this.#dropoutSeed(),
        }),
      ),
    );
    this.#metrics.addLosses(losses);
    return losses;
  }

  /** Computes the gradients of the micro-batch that `forward` saw last, reducing each unit's as soon as it is there. */
  backward(losses: Tensor): void {
    withOwner(owners.activations, () => this.#tape.backward(losses));
    this.#executor.end();
    this.#micro++;
  }

  /**
   * Updates the weights with the gradients of the step's micro-batches.
   * A gradient that is not finite skips the step on every rank.
   * @throws CONFIG when a micro-batch is missing; INTERNAL after five skipped steps in a row, naming the parameter
   */
  async step(): Promise<StepReport> {
    this.#expectWholeStep();
    const { gradientClipping, checkGradOverflow } = this.config;
    const { gradNorm, loss, nonFiniteUnits } = await this.#metrics.reduce(this.storages, this.group, (fn) =>
      this.#executor.communicate(fn),
    );
    this.#micro = 0;
    const lr = this.scheduler.lr();
    const skipped = checkGradOverflow && nonFiniteUnits.length > 0;
    if (skipped) this.#skip(nonFiniteUnits, loss);
    else {
      this.#skippedInARow = 0;
      this.#stepsTaken++;
      // torch.nn.utils.clip_grad_norm_ and Megatron: where clipping binds, the norm becomes clip * norm / (norm + 1e-6).
      this.#gradScale = gradientClipping > 0 ? Math.min(1, gradientClipping / (gradNorm + 1e-6)) : 1;
      this.#executor.step();
      this.scheduler.advance();
    }
    for (const storage of this.storages) storage.closeGradShard();
    const sent = this.group.counters().bytes;
    const bytesSent = sent - this.#bytesSentBefore;
    this.#bytesSentBefore = sent;
    return { step: this.#stepsTaken, loss, gradNorm, lr, skipped, bytesSent };
  }

  /** Runs one whole step: as many micro-batches from `next` as the config accumulates, then the update. */
  async trainBatch(next: () => MicroBatch): Promise<StepReport> {
    for (let i = 0; i < this.config.batch.accumulation; i++) {
      using losses = this.forward(next());
      this.backward(losses);
    }
    return this.step();
  }

  /** Gives the mean loss over micro-batches of all ranks, without learning from them. Every rank must call it alike. */
  async evalBatch(batches: Iterable<MicroBatch>): Promise<number> {
    using total = keep(Tensor.from([0, 0], [2], { dtype: 'f64', device: this.device }));
    let sumOfLosses = 0;
    let count = 0;
    for (const batch of batches) {
      this.#executor.begin('evaluation');
      using losses = this.#losses(batch, (inputs) => this.#model.loss({ ...inputs, scale: 1 }));
      this.#executor.end();
      for (const loss of await losses.numbers()) sumOfLosses += loss;
      count += losses.numel;
    }
    total.write([sumOfLosses, count]);
    this.#executor.communicate(() => this.group.allReduce(total, total));
    const [sum, n] = await total.numbers();
    return sum! / n!;
  }

  /** Runs `fn` with the whole weights of one unit at hand; on all ranks alike. */
  withFullUnit<T>(unit: number, fn: (storage: UnitStorage) => T): T {
    return this.#executor.withGathered(unit, fn);
  }

  /** Spreads weights to where they are whole, after a checkpoint wrote the owned ones. */
  async refreshWeights(stepsTaken: number): Promise<void> {
    this.#stepsTaken = stepsTaken;
    for (const storage of this.storages) storage.castMaster();
    this.#executor.spreadWeights();
    await this.device.defaultStream.join();
  }

  /** Bytes of weights, gradients and optimizer states that this rank holds while a step needs them all. */
  modelStateBytes(): number {
    const booked = this.device.account().owners;
    return modelStateOwners.reduce((sum, owner) => sum + (booked[owner]?.peak ?? 0), 0);
  }

  /** What the plan says a step sends, the few numbers of `StepMetrics` left out. */
  plannedTraffic(): { elements: number; bytes: number } {
    const bytes = (precision: 'fp32' | 'bf16') => dtypeBytes[precision === 'bf16' ? 'bf16' : 'f32'];
    const { paramDtype, gradDtype, batch } = this.config;
    return planTraffic(this.plan, { paramBytes: bytes(paramDtype), gradBytes: bytes(gradDtype) }, batch.accumulation);
  }

  [Symbol.dispose](): void {
    this.#tape[Symbol.dispose]();
    this.#metrics[Symbol.dispose]();
    this.#optimizer.norms?.dispose();
    for (const storage of this.storages) storage[Symbol.dispose]();
  }

  #gradScale = 1;

  #optimizerStep(): OptimizerStep {
    return {
      step: this.#stepsTaken,
      lr: this.scheduler.lr(),
      beta1: this.scheduler.beta1() ?? this.config.optimizer.beta1,
      gradScale: this.#gradScale,
    };
  }

  #losses(batch: MicroBatch, run: (inputs: { ids: Tensor; targets: Tensor }) => Tensor): Tensor {
    const { ids, targets, shape } = splitRows(batch);
    const options = { dtype: 'i32', device: this.device } as const;
    return withOwner(owners.activations, () => {
      using idTensor = keep(Tensor.from(ids, shape, options));
      using targetTensor = keep(Tensor.from(targets, shape, options));
      return keep(scope(() => withObserver(this.#executor, () => run({ ids: idTensor, targets: targetTensor }))));
    });
  }

  /** Another one for every micro-batch of every step of every rank. */
  #dropoutSeed(): number {
    const { accumulation } = this.config.batch;
    const draw = (this.scheduler.completedSteps * accumulation + this.#micro) * this.group.size + this.group.rank;
    return this.config.seed * 2 ** 32 + draw;
  }

  #expectWholeStep(): void {
    const { accumulation } = this.config.batch;
    if (this.#micro === accumulation) return;
    throw new DsError({
      code: 'CONFIG',
      op: 'step',
      expected: `${accumulation} micro-batches (gradient_accumulation_steps), each through forward and backward`,
      actual: String(this.#micro),
      hint: 'call step() once for every gradient_accumulation_steps of backward(), or use trainBatch()',
    });
  }

  #skip(units: readonly number[], loss: number): void {
    if (++this.#skippedInARow < maxSkippedInARow) return;
    const names = units.map((unit) => this.plan.units[unit]!.layout.unit.name);
    throw new DsError({
      code: 'INTERNAL',
      op: 'step',
      expected: 'a finite gradient',
      actual: `NaN or infinity in ${names.slice(0, 3).join(', ')}, ${maxSkippedInARow} steps in a row (loss ${loss})`,
      hint: 'lower the learning rate, turn gradient_clipping on, or look at the data of these steps',
    });
  }
}

/** Cuts rows of T + 1 tokens into T inputs and the T tokens that follow them. */
function splitRows({ rows }: MicroBatch): { ids: Int32Array; targets: Int32Array; shape: [number, number] } {
  const T = (rows[0]?.length ?? 0) - 1;
  if (T < 1 || rows.some((row) => row.length !== T + 1))
    throw new DsError({
      code: 'SHAPE',
      op: 'micro-batch',
      expected: 'rows of one length of at least 2 tokens',
      actual: `lengths ${rows.map((row) => row.length).join(', ')}`,
    });
  const ids = new Int32Array(rows.length * T);
  const targets = new Int32Array(rows.length * T);
  rows.forEach((row, b) => {
    for (let t = 0; t < T; t++) {
      ids[b * T + t] = row[t]!;
      targets[b * T + t] = row[t + 1]!;
    }
  });
  return { ids, targets, shape: [rows.length, T] };
}
