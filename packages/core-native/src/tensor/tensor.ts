/** Tensors: a shape, a dtype and a handle on memory of a device. Contiguous, row major, at most 6 dims. */
import { currentOwner, type Device, type DeviceName, device as deviceOf } from '../device';
import { DsError } from '../errors';
import { native } from '../loader';
import { type ArrayOf, type DType, dtypeCode, packNumbers, type TypedArray, typedArray, unpackNumbers } from './dtype';
import { track } from './scope';

export interface TensorOptions {
  dtype?: DType;
  device?: DeviceName | Device;
}

export function numelOf(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}

/**
 * A value on a device. Ops on it are queued; `read` waits for them.
 *
 * Memory has one rule: a tensor lives until its references are gone. Making one gives one reference, which the
 * surrounding `scope` (if any) drops at its end; `retain` adds one, `dispose` takes one.
 */
export class Tensor implements Disposable {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly device: Device;
  /** The native handle; for ops. A stale one is refused there. */
  readonly id: number;

  private constructor(id: number, shape: readonly number[], dtype: DType, device: Device) {
    this.id = id;
    this.shape = shape;
    this.dtype = dtype;
    this.device = device;
    track(this);
  }

  /** Allocates without writing. The contents are whatever was there. */
  static empty(shape: readonly number[], options: TensorOptions = {}): Tensor {
    const device = deviceOf(options.device ?? 'cpu');
    const dtype = options.dtype ?? 'f32';
    for (const d of shape)
      if (!Number.isInteger(d) || d < 0)
        throw new DsError({
          code: 'SHAPE',
          op: 'tensor',
          expected: 'whole dims >= 0',
          actual: `[${shape.join(', ')}]`,
        });
    const id = native.allocate(device.stream.id, dtypeCode[dtype], device.ownerId(currentOwner()), ...shape);
    return new Tensor(id, [...shape], dtype, device);
  }

  /** Makes a tensor of `values`, rounded to `dtype` (default f32). */
  static from(values: ArrayLike<number>, shape: readonly number[], options: TensorOptions = {}): Tensor {
    const tensor = Tensor.empty(shape, options);
    tensor.write(values);
    return tensor;
  }

  get numel(): number {
    return numelOf(this.shape);
  }

  /** Size of dim `i`; negative counts from the end. */
  dim(i: number): number {
    return this.shape[i < 0 ? i + this.shape.length : i]!;
  }

  /** Shows `numel(shape)` elements from `offset` on as a tensor of `shape`. Shares memory, holds a reference of its own. */
  view(shape: readonly number[], offset = 0): Tensor {
    return new Tensor(native.view(this.id, offset, ...shape), [...shape], this.dtype, this.device);
  }

  /**
   * Copies to another device, in the order of both devices' streams; the same device gives a view of the same memory.
   *
   * @throws DEVICE from `null`, which holds no values
   */
  to(target: DeviceName | Device): Tensor {
    const device = deviceOf(target);
    if (device === this.device) return this.view(this.shape);
    if (this.device.name === 'null')
      throw new DsError({
        code: 'DEVICE',
        op: 'to',
        expected: 'a tensor that holds values',
        actual: 'one on null, which knows shapes and bytes only',
      });
    const out = Tensor.empty(this.shape, { dtype: this.dtype, device });
    if (device.name === 'null') return out;
    const [worker, other] =
      this.device.isCuda && !device.isCuda ? [this.device.stream, device.stream] : [device.stream, this.device.stream];
    worker.wait(other.record());
    native.transfer(worker.id, out.id, this.id);
    other.wait(worker.record());
    return out;
  }

  retain(): this {
    native.retain(this.id);
    return this;
  }

  /** Takes one reference away. The memory may be used again by whatever is queued later. */
  dispose(): void {
    native.release(this.id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Writes numbers (rounded to the dtype), in stream order. */
  write(values: ArrayLike<number>): void {
    if (values.length !== this.numel)
      throw new DsError({
        code: 'SHAPE',
        op: 'write',
        expected: `${this.numel} values for [${this.shape.join(', ')}]`,
        actual: String(values.length),
      });
    this.writeBytes(packNumbers(this.dtype, values));
  }

  /** Writes elements that are already of this dtype (16-bit floats as their bits), in stream order. */
  writeBytes(packed: TypedArray | Uint8Array): void {
    const bytes = new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength);
    native.write(this.device.stream.id, this.id, bytes);
  }

  /** Reads the elements once everything queued so far is done; 16-bit floats as their bits. */
  async read<D extends DType = DType>(): Promise<ArrayOf[D]> {
    return typedArray(this.dtype as D, await native.read(this.device.stream.id, this.id));
  }

  /** Reads the elements as numbers, whatever the dtype. */
  async numbers(): Promise<Float64Array> {
    return unpackNumbers(this.dtype, await this.read());
  }

  /** Reads a tensor of one element. */
  async item(): Promise<number> {
    const values = await this.numbers();
    if (values.length !== 1)
      throw new DsError({ code: 'SHAPE', op: 'item', expected: 'one element', actual: `[${this.shape.join(', ')}]` });
    return values[0]!;
  }

  toString(): string {
    return `[${this.shape.join(', ')}] ${this.dtype} on ${this.device.name}`;
  }
}

/** Counts tensors that were made and not disposed, on all devices. */
export function liveTensors(): number {
  return native.live_tensors();
}
