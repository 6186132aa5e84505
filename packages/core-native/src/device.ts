/** Devices, their streams and events, and the account of their memory. */
import type { NativeAccount, NativeCuda } from './binding';
import { readLocalPlace } from './collectives/environment';
import { configureCudaGemm } from './cublaslt';
import { DsError } from './errors';
import { native } from './loader';

/**
 * `cpu`: vector kernels on the thread pool. `cuda:n`: the n-th NVIDIA GPU; `cuda` the one of this process, by its place
 * among the ranks of this host (LOCAL_RANK). `ref`: plain loops with double accumulators, the specification of every op.
 * `null`: shapes and bytes only, for plans of models of any size.
 */
export type DeviceName = 'cpu' | 'ref' | 'null' | 'cuda' | `cuda:${number}`;

/** The values cross the native boundary: keep in step with csrc/runtime/stream.h. cuda:n is `firstCuda` + n. */
const hostDevices = ['cpu', 'ref', 'null'] as const;
const firstCuda = hostDevices.length;
/** The oldest GPUs that the kernels are compiled for. */
export const leastCapability = 8;

/** The number of a device. @throws DEVICE for a name that is none, or a GPU that is not there */
function numberOf(name: string): number {
  const host = hostDevices.indexOf(name as (typeof hostDevices)[number]);
  if (host >= 0) return host;
  const index = /^cuda:(\d{1,2})$/.exec(name)?.[1];
  const { devices, problem } = native.cuda();
  const gpu = index === undefined ? undefined : devices[Number(index)];
  if (gpu) {
    if (Number.parseInt(gpu.capability, 10) >= leastCapability) {
      configureCudaGemm();
      return firstCuda + Number(index);
    }
    throw new DsError({
      code: 'DEVICE',
      op: 'device',
      expected: `a GPU of compute capability ${leastCapability}.0 or higher for ${name}`,
      actual: `${gpu.name} with ${gpu.capability}`,
      hint: 'the kernels need tensor cores with bf16 (A100 and later): use the device cpu',
    });
  }
  const names = [...hostDevices, ...devices.map((_, i) => `cuda:${i}`)];
  throw new DsError({
    code: 'DEVICE',
    op: 'device',
    expected: `one of ${names.join(', ')}`,
    actual: name,
    hint: problem ? `No GPU can be used: ${problem}. \`ds doctor\` says more` : undefined,
  });
}

/**
 * The GPU of this process: number LOCAL_RANK. Where there are fewer GPUs than ranks that is an error, because NCCL wants
 * one a rank; unless the one in CUDA_VISIBLE_DEVICES was chosen for this rank, or GPUs are emulated.
 */
function ownGpu(): DeviceName {
  const { devices, emulated } = native.cuda();
  const { rank, ranks } = readLocalPlace();
  const chosen = devices.length === 1 && /^[^,]+$/.test(process.env.CUDA_VISIBLE_DEVICES ?? '');
  if (devices.length === 0) return 'cuda:0'; // which says what is missing
  if (ranks <= devices.length || emulated || chosen) return `cuda:${rank % devices.length}`;
  throw new DsError({
    code: 'DEVICE',
    op: 'device',
    expected: `a GPU for each of the ${ranks} ranks on this host`,
    actual: `${devices.length} GPU${devices.length === 1 ? '' : 's'}`,
    hint: 'start as many ranks as there are GPUs, or give each rank one by CUDA_VISIBLE_DEVICES',
  });
}

/** A point in a stream that another stream, or a person, can wait for. */
export interface Event {
  readonly stream: Stream;
  readonly ticket: number;
}

/** An ordered queue of work on a device. Enqueueing returns at once; `join` waits. */
export class Stream {
  readonly device: Device;
  /** The native handle; for ops. */
  readonly id: number;

  constructor(device: Device) {
    this.device = device;
    this.id = native.create_stream(device.number);
  }

  /** Marks everything queued so far. */
  record(): Event {
    return { stream: this, ticket: native.record(this.id) };
  }

  /** Holds back what is queued from now on until `event` has passed. */
  wait(event: Event): void {
    native.wait(this.id, event.stream.id, event.ticket);
  }

  /**
   * Waits until everything queued so far is done. On `cuda:n`, what was queued behind an op that found bad data (an id
   * outside the vocabulary) has run all the same; elsewhere it is skipped.
   *
   * @throws the first error of the stream since the last join
   */
  join(): Promise<void> {
    return native.join(this.id);
  }

  /** Gives the free memory of this stream's arena back to the system. */
  trim(): void {
    native.trim(this.id);
  }
}

/** One place that computes and remembers. Get it with `device(name)`. */
export class Device {
  readonly name: DeviceName;
  /** The native handle. */
  readonly number: number;
  /** Where ops go when nobody says otherwise. */
  readonly defaultStream: Stream;
  /** Where ops go now; see `withStream`. */
  stream: Stream;
  readonly #owners = new Map<string, number>();

  constructor(name: DeviceName) {
    this.name = name;
    this.number = numberOf(name);
    this.defaultStream = new Stream(this);
    this.stream = this.defaultStream;
  }

  /** Whether this is a GPU. */
  get isCuda(): boolean {
    return this.number >= firstCuda;
  }

  createStream(): Stream {
    return new Stream(this);
  }

  /** Sends the ops that `fn` queues to `stream`. `fn` must not be asynchronous. */
  withStream<T>(stream: Stream, fn: () => T): T {
    const before = this.stream;
    this.stream = stream;
    try {
      return fn();
    } finally {
      this.stream = before;
    }
  }

  /** Bytes of tensors now and at most, in all and by owner (see `withOwner`). */
  account(): NativeAccount {
    return native.account(this.number);
  }

  /** Starts the counting of peaks again, from what is live. */
  resetPeak(): void {
    native.reset_peak(this.number);
  }

  /** Makes allocations beyond `bytes` fail with OOM; Infinity takes the limit away. */
  setLimit(bytes: number): void {
    native.set_limit(this.number, Math.min(bytes, Number.MAX_SAFE_INTEGER));
  }

  /** @internal */
  ownerId(name: string): number {
    let id = this.#owners.get(name);
    if (id === undefined) {
      id = native.owner_id(this.number, name);
      this.#owners.set(name, id);
    }
    return id;
  }
}

const devices = new Map<string, Device>();

/** Gives the device of that name. @throws DEVICE for a name that is none, or a GPU that is not there */
export function device(name: DeviceName | Device): Device {
  if (name instanceof Device) return name;
  let found = devices.get(name);
  if (!found) {
    found = name === 'cuda' ? device(ownGpu()) : new Device(name);
    devices.set(name, found);
  }
  return found;
}

/** What is known of this machine's GPUs, and of the library that would run on them. */
export function cudaDevices(): NativeCuda {
  return native.cuda();
}

let owner = 'other';

/** Books the tensors that `fn` allocates under `name` in the device's account. `fn` must not be asynchronous. */
export function withOwner<T>(name: string, fn: () => T): T {
  const before = owner;
  owner = name;
  try {
    return fn();
  } finally {
    owner = before;
  }
}

/** @internal */
export function currentOwner(): string {
  return owner;
}
