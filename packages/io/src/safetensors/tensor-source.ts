/** What every source of stored tensors offers, one file or many: names, shapes, and bytes on demand. */
import type { FileDtype } from './dtype';

/** Name, type and shape of a tensor. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: FileDtype;
  /** Row-major sizes; empty for a scalar. */
  readonly shape: readonly number[];
}

/** Where a stored tensor lies. */
export interface TensorInfo extends TensorSpec {
  readonly elementCount: number;
  readonly byteLength: number;
  /** From the start of its file. */
  readonly byteOffset: number;
}

/** A tensor in memory: `bytes` holds the elements little-endian, row-major, back to back. */
export interface TensorData {
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Tensors that can be read by name. */
export interface TensorSource extends Disposable {
  /** File or folder, for messages. */
  readonly path: string;
  /** All names, in the order in which the bytes lie: reading in this order reads the disk in sequence. */
  readonly names: readonly string[];
  has(name: string): boolean;
  /** @throws DsError FORMAT, naming the nearest tensor, if there is none of that name */
  info(name: string): TensorInfo;
  /** Reads a whole tensor into memory of its own. */
  tensor(name: string): TensorData;
  /**
   * Reads elements `elementStart` … `elementStart + elementCount - 1` of the flattened tensor into `target`.
   *
   * So a rank reads only its shard, straight into the memory where it will live.
   * @param target exactly the bytes of `elementCount` elements
   * @param elementStart default 0
   * @param elementCount default: all from `elementStart` on
   */
  readInto(name: string, target: Uint8Array, elementStart?: number, elementCount?: number): void;
  close(): void;
}
