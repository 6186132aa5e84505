/** Groups of ranks that move tensors between them. */
import { type Device, type DeviceName, device as deviceOf, withOwner } from '../device';
import { DsError } from '../errors';
import { native } from '../loader';
import { expectDevice, expectDType } from '../ops/check';
import type { DType } from '../tensor/dtype';
import { keep } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { readRankEnvironment } from './environment';
import { findNccl } from './nccl';
import { type GroupCounters, type Primitive, primitives, type Traffic } from './primitives';
import { dieWithLauncher } from './rank';

export interface GroupOptions {
  /** How long a rank waits for the others in one call before it gives up; default 10 minutes, or `DS_COMM_TIMEOUT_MS`. */
  timeoutMs?: number;
  /**
   * How tensors travel. On the CPU `pulled`: ranks read each other's memory directly, one copy; `staged`: through shared
   * slots, two copies; `auto`: pulled where the system allows it. On GPUs through NCCL, with sums in the order of ranks,
   * the bits of the CPU; `nccl_unordered` leaves sums to NCCL, which is faster, rounds 16-bit tensors at every step, and
   * gives results that depend on the number of ranks and on NCCL. `nccl` is `auto` that uses NCCL also in a group of one.
   * Alike on all ranks. Default `auto`, or `DS_COMM_TRANSPORT`.
   */
  transport?: 'auto' | 'pulled' | 'staged' | 'nccl' | 'nccl_unordered';
  /** Bytes of a staged chunk, 4096 to 524288, a multiple of 64; default 524288. Alike on all ranks; never changes results. */
  chunkBytes?: number;
  /** A random wait up to this long before every call, to shake out what depends on timing; default 0, or `DS_COMM_JITTER_US`. */
  jitterMicros?: number;
}

export interface EnvironmentOptions extends GroupOptions {
  /** A GPU whose tensors the group will move: NCCL is opened at once, not at the first call. `cuda` is this rank's own. */
  device?: DeviceName | Device;
}

export interface CallOptions {
  /** What is moved, for the messages of errors and the flight record; must be alike on all ranks. */
  tag?: string;
}

export interface ReduceOptions extends CallOptions {
  /** Multiplies the sum before it is rounded, such as 1/N for a mean; default 1. */
  scale?: number;
}

// On the host, the names that are about GPUs mean `auto`.
const transports = { auto: 0, pulled: 1, staged: 2, nccl: 0, nccl_unordered: 0 } as const;
type Transport = keyof typeof transports;
const floats = ['f32', 'bf16', 'f16', 'f64'] as const;
const synchronous = process.env.DS_SYNC === '1';
const codeOf = new Map(primitives.map((name, code) => [name, code]));

/**
 * A rank's membership of a group. Calls are queued on the current stream of the tensors' device and run there in turn;
 * a failure (COMM, COMM_TIMEOUT, ABORTED) comes with the next join, is the same on all ranks, and is final. Tensors of
 * the CPU travel through shared memory, those of a GPU, one a rank, through NCCL.
 *
 * Every rank must make the same calls in the same order; the first that differs is named. Sums run in f32 (f64 for f64)
 * from rank 0 up and are rounded once: bitwise the same on every rank, whatever the chunks, threads and timing.
 */
export class ProcessGroup implements Disposable {
  readonly rank: number;
  readonly size: number;
  readonly #id: number;
  readonly #home: Device;
  readonly #options: ResolvedOptions;
  /** NCCL was asked for. */
  #onCuda = false;

  private constructor(id: number, home: Device, options: ResolvedOptions) {
    const { rank, size } = native.comm_info(id)!;
    this.#id = id;
    this.#home = home;
    this.#options = options;
    this.rank = rank;
    this.size = size;
  }

  /**
   * Joins the job this process was started in by our launcher, torchrun, mpirun or srun; a group of one without any.
   * Resolves once all ranks are there.
   *
   * @throws UNSUPPORTED for ranks on several hosts, or for a GPU without NCCL; CONFIG, COMM, COMM_TIMEOUT
   */
  static async fromEnvironment(options: EnvironmentOptions = {}): Promise<ProcessGroup> {
    const group = await ProcessGroup.#join(options);
    const device = deviceOf(options.device ?? 'cpu');
    if (!device.isCuda) return group;
    group.#openCuda(device);
    await device.stream.join();
    return group;
  }

  static async #join(options: GroupOptions): Promise<ProcessGroup> {
    dieWithLauncher();
    const found = readRankEnvironment();
    if (!found) return ProcessGroup.single(options);
    const home = deviceOf('cpu');
    const resolved = resolveOptions(options);
    // The descriptor is closed once it is mapped: neither a second group nor a child process may take it for one.
    delete process.env.DS_COMM_FD;
    const { fd = -1, session = '', rank, world } = found;
    const opened = await native.comm_open(home.stream.id, fd, session, rank, world, ...nativeOptions(resolved));
    return new ProcessGroup(opened.group, home, resolved);
  }

  /** A group of this process alone: the same calls with the same results and counters, for one rank. */
  static single(options: GroupOptions = {}): ProcessGroup {
    const resolved = resolveOptions(options);
    return new ProcessGroup(native.comm_single(...nativeOptions(resolved)), deviceOf('cpu'), resolved);
  }

  /** Rank `rank` of `size` ranks that do not exist: counts what calls on tensors of the `null` device would send. */
  static null(size: number, rank = 0): ProcessGroup {
    if (!Number.isInteger(size) || size < 1 || !Number.isInteger(rank) || rank < 0 || rank >= size)
      throw new DsError({
        code: 'CONFIG',
        op: 'ProcessGroup.null',
        expected: 'a rank below the size',
        actual: `rank ${rank} of ${size}`,
      });
    return new ProcessGroup(native.comm_null(rank, size), deviceOf('null'), resolveOptions({}));
  }

  /** How bytes travel, for people: 'shared memory, single copy; cuda:0: NCCL 2.27.3, sums in order of ranks'. */
  get transport(): string {
    return native.comm_info(this.#id)?.transport ?? 'none';
  }

  /**
   * Sums `input [n]` over the ranks into `out [n]`, times `scale`. `out` may be `input`.
   *
   * @param out dtype of input, or f32 for bf16 and f16
   * @throws SHAPE, DTYPE, DEVICE
   */
  allReduce(out: Tensor, input: Tensor, options: ReduceOptions = {}): void {
    expectCount('allReduce', 'out', out, input.numel, 'out and input have one size');
    expectSum('allReduce', out, input);
    this.#run('allReduce', out, input, options);
  }

  /**
   * Sums `full [n]` over the ranks, times `scale`, and leaves slice `rank` of it in `shard [n/N]`, which may be that
   * slice of `full`.
   *
   * @param shard dtype of full, or f32 for bf16 and f16
   * @param options.accumulate adds to what shard holds, before the one rounding
   * @throws SHAPE, DTYPE, DEVICE
   */
  reduceScatter(shard: Tensor, full: Tensor, options: ReduceOptions & { accumulate?: boolean } = {}): void {
    expectCount('reduceScatter', 'full', full, shard.numel * this.size, this.#sliceHint);
    expectSum('reduceScatter', shard, full);
    this.#run('reduceScatter', shard, full, options);
  }

  /** Gathers `shard [n/N]` of every rank, in order of ranks, into `full [n]`; `shard` may be slice `rank` of `full`. Any dtype. */
  allGather(full: Tensor, shard: Tensor, options: CallOptions = {}): void {
    expectCount('allGather', 'full', full, shard.numel * this.size, this.#sliceHint);
    expectDType('allGather', 'shard', shard, [full.dtype]);
    this.#run('allGather', full, shard, options);
  }

  /** Gives every rank what `tensor` holds on rank `root`. Any dtype. */
  broadcast(tensor: Tensor, root: number, options: CallOptions = {}): void {
    this.#expectRank('broadcast', 'root', root);
    this.#run('broadcast', tensor, tensor, { ...options, peer: root });
  }

  /** Slice r of `out [n]` becomes slice `rank` of rank r's `input [n]`. They must not overlap. Any dtype. */
  allToAll(out: Tensor, input: Tensor, options: CallOptions = {}): void {
    expectCount('allToAll', 'out', out, input.numel, 'out and input have one size');
    expectDType('allToAll', 'out', out, [input.dtype]);
    if (input.numel % this.size !== 0)
      throw shapeError('allToAll', `a multiple of ${this.size} elements for input`, input, this.#sliceHint);
    this.#run('allToAll', out, input, options);
  }

  /** Sends `tensor` to rank `to`, which must `recv` it; over when it has been taken. Any dtype. */
  send(tensor: Tensor, to: number, options: CallOptions = {}): void {
    this.#expectRank('send', 'to', to);
    this.#run('send', undefined, tensor, { ...options, peer: to });
  }

  /** Receives into `tensor` what rank `from` sends. Messages between two ranks arrive in order. */
  recv(tensor: Tensor, from: number, options: CallOptions = {}): void {
    this.#expectRank('recv', 'from', from);
    this.#run('recv', tensor, undefined, { ...options, peer: from });
  }

  /** Holds the current stream of the CPU back until all ranks have come here. */
  barrier(options: CallOptions = {}): void {
    this.#run('barrier', undefined, undefined, options);
  }

  /** Gives every rank's `text`, in order of ranks: for plans' hashes, addresses and verdicts, not for data. */
  async exchange(text: string): Promise<string[]> {
    if (this.#home.name === 'null') return Array.from({ length: this.size }, () => text);
    const bytes = Buffer.from(text);
    const lengths = await this.#exchange(Int32Array.of(bytes.length), 'i32');
    const longest = Math.max(...lengths);
    const padded = new Uint8Array(longest);
    padded.set(bytes);
    const all = Buffer.from((await this.#exchange(padded, 'u8')) as Uint8Array);
    return Array.from(lengths, (length, r) => all.toString('utf8', r * longest, r * longest + length));
  }

  /**
   * Cuts the group into one of each `color`, ordered by `key`, then by rank here. Every rank must call it; one without
   * a color gets no group. Resolves once all ranks have.
   */
  async split(color: number | undefined, key = this.rank): Promise<ProcessGroup | undefined> {
    for (const value of [color ?? 0, key])
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** 31)
        throw new DsError({
          code: 'CONFIG',
          op: 'split',
          expected: 'whole numbers >= 0 for color and key',
          actual: String(value),
        });
    const { group } = await native.comm_split(this.#home.stream.id, this.#id, color ?? -1, key);
    return native.comm_info(group) && new ProcessGroup(group, this.#home, this.#options);
  }

  /** What this rank has sent by the calls that were made (queued or done) since the start or `resetCounters`. */
  counters(): GroupCounters {
    const flat = native.comm_counters(this.#id);
    const total: Traffic = { calls: 0, elements: 0, bytes: 0 };
    const rows = primitives.map((name, i): [Primitive, Traffic] => {
      const row = { calls: flat[3 * i]!, elements: flat[3 * i + 1]!, bytes: flat[3 * i + 2]! };
      if (name !== 'exchange') for (const unit of ['calls', 'elements', 'bytes'] as const) total[unit] += row[unit];
      return [name, row];
    });
    return { ...total, byPrimitive: Object.fromEntries(rows) as Record<Primitive, Traffic> };
  }

  resetCounters(): void {
    native.comm_reset_counters(this.#id);
  }

  /** Every rank's last finished and pending call, as far as this rank can see, for people. */
  flightRecord(): string {
    return native.comm_info(this.#id)?.flight ?? '';
  }

  /** Fails the calls of all ranks, those that wait and those to come, with ABORTED and `reason`: in this group, and in all of its job. */
  abort(reason = ''): void {
    native.comm_abort(this.#id, reason);
  }

  /** Leaves the group after its queued calls. Not collective; the others fail if they still count on this rank. */
  destroy(): void {
    native.comm_destroy(this.#home.stream.id, this.#id);
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  get #sliceHint(): string {
    return `full is ${this.size} shards, one a rank: pad to a multiple of ${this.size}`;
  }

  #run(
    primitive: Primitive,
    out: Tensor | undefined,
    input: Tensor | undefined,
    options: { tag?: string; scale?: number; accumulate?: boolean; peer?: number },
  ): void {
    const first = out ?? input;
    if (first) expectDevice(primitive, first, input);
    const device = first?.device ?? this.#home;
    if (device.isCuda && this.#home.name !== 'null') this.#openCuda(device);
    const { stream } = device;
    const { tag = '', scale = 1, accumulate = false, peer = -1 } = options;
    // biome-ignore format: the order of the contract
    native.comm_run(stream.id, this.#id, codeOf.get(primitive)!, out?.id ?? 0, input?.id ?? 0, peer, scale, accumulate, tag);
    if (synchronous) native.join_sync(stream.id);
  }

  /** Queues the meeting of the ranks for tensors of `device`, once. It is part of the order of calls. */
  #openCuda(device: Device): void {
    if (this.#onCuda) return;
    this.#onCuda = true;
    const { transport, timeoutMs } = this.#options;
    if (this.size > 1 || transport.startsWith('nccl')) findNccl();
    const exact = transport !== 'nccl_unordered';
    native.comm_open_cuda(device.stream.id, this.#id, exact, transport.startsWith('nccl'), timeoutMs);
  }

  async #exchange(mine: Int32Array | Uint8Array, dtype: 'i32' | 'u8'): Promise<Int32Array | Uint8Array> {
    const make = (n: number) => withOwner('collectives', () => keep(Tensor.empty([n], { dtype, device: this.#home })));
    using part = make(mine.length);
    using all = make(mine.length * this.size);
    part.writeBytes(mine);
    this.#run('exchange', all, part, {});
    return all.read<'i32' | 'u8'>();
  }

  #expectRank(op: string, argument: string, rank: number): void {
    const self = op !== 'broadcast' && rank === this.rank;
    if (Number.isInteger(rank) && rank >= 0 && rank < this.size && !self) return;
    throw new DsError({
      code: 'CONFIG',
      op,
      expected: `a rank from 0 to ${this.size - 1}${op === 'broadcast' ? '' : ' other than this one'} for ${argument}`,
      actual: String(rank),
    });
  }
}

type ResolvedOptions = Readonly<Required<GroupOptions>>;

function resolveOptions(options: GroupOptions): ResolvedOptions {
  const {
    timeoutMs = fromVariable('DS_COMM_TIMEOUT_MS', 600_000),
    transport = (process.env.DS_COMM_TRANSPORT ?? 'auto') as Transport,
    chunkBytes = 524_288,
    jitterMicros = fromVariable('DS_COMM_JITTER_US', 0),
  } = options;
  if (!Object.hasOwn(transports, transport))
    throw optionError(`one of ${Object.keys(transports).join(', ')} for transport`, transport);
  if (!(timeoutMs > 0)) throw optionError('a time above 0 for timeoutMs', String(timeoutMs));
  if (!(jitterMicros >= 0)) throw optionError('a time of 0 or more for jitterMicros', String(jitterMicros));
  return { timeoutMs: Math.min(timeoutMs, Number.MAX_SAFE_INTEGER), transport, chunkBytes, jitterMicros };
}

function nativeOptions(options: ResolvedOptions): [number, number, number, number] {
  return [options.timeoutMs, options.chunkBytes, transports[options.transport], options.jitterMicros];
}

function fromVariable(name: string, otherwise: number): number {
  const text = process.env[name];
  return text === undefined ? otherwise : Number(text);
}

function optionError(expected: string, actual: string): DsError {
  return new DsError({ code: 'CONFIG', op: 'ProcessGroup', expected, actual });
}

function shapeError(op: string, expected: string, tensor: Tensor, hint: string): DsError {
  return new DsError({ code: 'SHAPE', op, expected, actual: `[${tensor.shape.join(', ')}]`, hint });
}

/** Requires a number of elements: collectives do not look at dims. */
function expectCount(op: string, argument: string, tensor: Tensor, elements: number, hint: string): void {
  if (tensor.numel !== elements) throw shapeError(op, `${elements} elements for ${argument}`, tensor, hint);
}

function expectSum(op: string, out: Tensor, input: Tensor): void {
  expectDType(op, 'the tensor to sum', input, floats, 'sums are of floats; gather or broadcast other dtypes');
  const wider: DType[] = input.dtype === 'bf16' || input.dtype === 'f16' ? ['f32'] : [];
  expectDType(
    op,
    'the result',
    out,
    [input.dtype, ...wider],
    'the result has the dtype of the input, or f32 for 16 bits',
  );
}
