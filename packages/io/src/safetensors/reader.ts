/**
 * Reads one safetensors file.
 *
 * Bytes come by positioned reads into memory the caller owns, not from a memory map: when a mapped file shrinks, touching
 * the lost pages kills the process with SIGBUS, which JavaScript cannot catch; a read of the same file returns an error.
 * It also puts a shard's bytes straight where they will live, without a second copy in the page tables of the process.
 */
import fs from 'node:fs';
import { DsError } from '@ds/core-native';
import { allocateBytes, openRegularFile, readExactly } from '../files/bounded-file';
import { LIMITS } from '../limits';
import { bitsOf, byteLengthOf } from './dtype';
import { LENGTH_BYTES, parseHeader, parseHeaderLength, type SafetensorsHeader } from './header';
import { nearestName } from './nearest-name';
import type { TensorData, TensorInfo, TensorSource } from './tensor-source';

export interface OpenSafetensorsOptions {
  /** Largest header accepted; default 25 MB, at most the format's 100 MB. */
  readonly maxHeaderBytes?: number;
}

/** An open safetensors file. Close it, or declare it with `using`. */
export class SafetensorsFile implements TensorSource {
  readonly path: string;
  readonly names: readonly string[];
  /** Free strings of the header. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  #fd: number | undefined;

  private constructor(path: string, fd: number, header: SafetensorsHeader) {
    this.path = path;
    this.#fd = fd;
    this.metadata = header.metadata;
    this.#tensors = header.tensors;
    this.names = Object.freeze([...header.tensors.keys()]);
  }

  /**
   * Opens a file and checks its whole header; no tensor is read.
   *
   * @throws DsError IO if it cannot be read; FORMAT if it breaks the format, naming tensor and offset
   */
  static open(path: string, options: OpenSafetensorsOptions = {}): SafetensorsFile {
    const op = 'openSafetensors';
    const { fd, bytes } = openRegularFile(op, path);
    try {
      const context = { op, path, fileBytes: bytes };
      if (bytes < LENGTH_BYTES) {
        const hint = 'The file is cut off or not safetensors; fetch or write it again.';
        const expected = `at least ${LENGTH_BYTES} bytes in ${path}`;
        throw new DsError({ code: 'FORMAT', op, expected, actual: `${bytes}`, hint });
      }
      const first = new Uint8Array(LENGTH_BYTES);
      readExactly(op, path, fd, first, 0);
      const length = parseHeaderLength(first, context, options.maxHeaderBytes ?? LIMITS.safetensorsHeaderBytes);
      const json = allocateBytes(op, length, `the header of ${path}`);
      readExactly(op, path, fd, json, LENGTH_BYTES);
      return new SafetensorsFile(path, fd, parseHeader(json, context));
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  info(name: string): TensorInfo {
    const info = this.#tensors.get(name);
    if (info) return info;
    throw new DsError({
      code: 'FORMAT',
      op: 'readTensor',
      expected: `a tensor ${JSON.stringify(name)} in ${this.path}`,
      actual: `${this.names.length} tensors, none of that name`,
      hint: nearestName(name, this.names),
    });
  }

  tensor(name: string): TensorData {
    const { dtype, shape, byteLength, byteOffset } = this.info(name);
    const bytes = allocateBytes('readTensor', byteLength, `tensor ${name} of ${this.path}`);
    readExactly('readTensor', this.path, this.#descriptor(), bytes, byteOffset);
    return { dtype, shape, bytes };
  }

  readInto(name: string, target: Uint8Array, elementStart = 0, elementCount?: number): void {
    const info = this.info(name);
    const count = elementCount ?? info.elementCount - elementStart;
    const position = this.#rangeOf(info, target, elementStart, count);
    readExactly('readInto', this.path, this.#descriptor(), target, info.byteOffset + position);
  }

  close(): void {
    if (this.#fd === undefined) return;
    fs.closeSync(this.#fd);
    this.#fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Checks a range of elements against tensor and target; returns its first byte within the tensor. */
  #rangeOf(info: TensorInfo, target: Uint8Array, start: number, count: number): number {
    const label = `tensor ${info.name} of ${this.path}`;
    const fail = (expected: string, actual: string, hint: string): never => {
      throw new DsError({ code: 'SHAPE', op: 'readInto', expected, actual, hint });
    };
    const whole = Number.isSafeInteger(start) && Number.isSafeInteger(count) && start >= 0 && count >= 0;
    if (!whole || start > info.elementCount - count) {
      const expected = `elementStart and elementCount within the ${info.elementCount} elements of ${label}`;
      return fail(expected, `${start} and ${count}`, 'Count in elements, not bytes.');
    }
    const position = byteLengthOf(info.dtype, start);
    const bytes = byteLengthOf(info.dtype, count);
    if (position === undefined || bytes === undefined) {
      const expected = `a range on whole bytes of ${bitsOf(info.dtype)}-bit elements of ${label}`;
      return fail(expected, `${start} and ${count}`, 'Start and end packed elements on multiples of 8 bits.');
    }
    if (target.byteLength !== bytes) {
      const expected = `a target of ${bytes} bytes for ${count} ${info.dtype} elements of ${label}`;
      return fail(expected, `${target.byteLength}`, 'Pass a view of exactly that size.');
    }
    return position;
  }

  #descriptor(): number {
    if (this.#fd !== undefined) return this.#fd;
    throw new DsError({
      code: 'DISPOSED',
      op: 'readTensor',
      expected: `an open file ${this.path}`,
      actual: 'a closed one',
      hint: 'Read before close(), or open it again.',
    });
  }
}
