/**
 * Writes one safetensors file: names and shapes first, bytes later, in any order and in pieces of any size.
 *
 * So a model that does not fit in memory is exported one gathered unit at a time. The bytes are those that the reference
 * implementation writes for the same tensors: largest element types first, then by name, header padded to 8 bytes.
 */
import { DsError } from '@ds/core-native';
import { AtomicFile } from '../files/atomic-file';
import { shorten } from '../json/strict-json';
import { LIMITS } from '../limits';
import { byteLengthOf, compareDtypes, elementCountOf, fileNameOfDtype, isFileDtype } from './dtype';
import { LENGTH_BYTES, nameProblem } from './header';
import { nearestName } from './nearest-name';
import type { TensorData, TensorInfo, TensorSpec } from './tensor-source';
import { WrittenRanges } from './written-ranges';

export interface SafetensorsWriterOptions {
  /** Free strings for the header, in this order. transformers wants `{ format: 'pt' }`. Default: none. */
  readonly metadata?: Readonly<Record<string, string>>;
}

const OP = 'writeSafetensors';

function refuse(
  expected: string,
  actual: string,
  hint: string,
  code: 'SHAPE' | 'DTYPE' | 'FORMAT' = 'FORMAT',
): DsError {
  return new DsError({ code, op: OP, expected, actual, hint });
}

/** Orders names as the reference writer does: by their UTF-8 bytes, which is by code point. */
export function compareUtf8(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Checks one tensor and counts its elements and bytes. @throws DsError FORMAT, DTYPE or SHAPE */
function measure({ name, dtype, shape }: TensorSpec): TensorInfo {
  const label = `tensor ${shorten(name)}`;
  const problem = nameProblem(name);
  if (problem) throw refuse('tensor names of 1 to 512 bytes of Unicode text', problem, 'Rename the tensor.');
  if (!isFileDtype(dtype)) {
    throw refuse(`a dtype of safetensors for ${label}`, shorten(String(dtype)), 'Cast it first.', 'DTYPE');
  }
  const elementCount = shape.length <= LIMITS.tensorRank ? elementCountOf(shape) : undefined;
  const byteLength = elementCount === undefined ? undefined : byteLengthOf(dtype, elementCount);
  if (elementCount === undefined || byteLength === undefined) {
    const expected = `at most ${LIMITS.tensorRank} sizes that make a whole number of bytes below 2^53 for ${label}`;
    throw refuse(expected, `[${shape.join(', ')}] ${dtype}`, 'Check the shape.', 'SHAPE');
  }
  return { name, dtype, shape: [...shape], elementCount, byteLength, byteOffset: 0 };
}

/** Lays tensors out in the file and builds the header, its 8 bytes of length included. */
export function layOut(
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
): { header: Uint8Array; tensors: TensorInfo[]; fileBytes: number } {
  if (specs.length > LIMITS.tensors) {
    throw refuse(`at most ${LIMITS.tensors} tensors`, `${specs.length}`, 'Write several files.');
  }
  const measured = specs.map(measure);
  measured.sort((a, b) => compareDtypes(a.dtype, b.dtype) || compareUtf8(a.name, b.name));
  const fields = Object.keys(metadata).length > 0 ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  const names = new Set<string>();
  let position = 0;
  for (const { name, dtype, shape, byteLength } of measured) {
    if (names.has(name)) throw refuse('each tensor once', `${shorten(name)} twice`, 'Give every tensor its own name.');
    names.add(name);
    const end = position + byteLength;
    if (!Number.isSafeInteger(end)) throw refuse('less than 2^53 bytes', 'more', 'Write several files.', 'SHAPE');
    // Written by hand and not as one object, whose keys JavaScript would reorder where they look like numbers.
    const entry = { dtype: fileNameOfDtype(dtype), shape, data_offsets: [position, end] };
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    position = end;
  }
  const json = Buffer.from(`{${fields.join(',')}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  if (padded > LIMITS.safetensorsHeaderBytesHard) {
    throw refuse(`a header of at most ${LIMITS.safetensorsHeaderBytesHard} bytes`, `${padded}`, 'Write several files.');
  }
  const header = new Uint8Array(LENGTH_BYTES + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, LENGTH_BYTES);
  const tensors: TensorInfo[] = [];
  let byteOffset = header.byteLength;
  for (const info of measured) {
    tensors.push({ ...info, byteOffset });
    byteOffset += info.byteLength;
  }
  return { header, tensors, fileBytes: byteOffset };
}

/** A safetensors file being written. Without `finish` it leaves nothing behind. */
export class SafetensorsWriter {
  readonly path: string;
  readonly fileBytes: number;
  readonly #file: AtomicFile;
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  readonly #written = new Map<string, WrittenRanges>();

  private constructor(file: AtomicFile, tensors: readonly TensorInfo[], fileBytes: number) {
    this.path = file.path;
    this.fileBytes = fileBytes;
    this.#file = file;
    this.#tensors = new Map(tensors.map((info) => [info.name, info]));
  }

  /**
   * Starts a file with these tensors: checks them, checks that the disk has the space, writes the header.
   *
   * @throws DsError FORMAT, DTYPE or SHAPE for a tensor the format cannot hold; IO if the file cannot be made
   */
  static create(path: string, specs: readonly TensorSpec[], options: SafetensorsWriterOptions = {}): SafetensorsWriter {
    const { header, tensors, fileBytes } = layOut(specs, options.metadata ?? {});
    const file = AtomicFile.create(OP, path, fileBytes);
    file.write(header, 0);
    return new SafetensorsWriter(file, tensors, fileBytes);
  }

  /**
   * Writes a piece of a tensor.
   *
   * @param bytes whole or partial content, little-endian, row-major
   * @param byteOffset of `bytes` within the tensor, default 0
   * @throws DsError SHAPE if the piece leaves the tensor or was written before; IO
   */
  write(name: string, bytes: Uint8Array, byteOffset = 0): void {
    const info = this.#tensors.get(name);
    if (!info) {
      const expected = `a tensor announced to create() of ${this.path}`;
      throw refuse(expected, shorten(name), nearestName(name, [...this.#tensors.keys()]));
    }
    const end = byteOffset + bytes.byteLength;
    if (!Number.isSafeInteger(byteOffset) || byteOffset < 0 || end > info.byteLength) {
      const expected = `bytes within the ${info.byteLength} of tensor ${name}`;
      throw refuse(expected, `${byteOffset} to ${end}`, 'Offsets count bytes within the tensor.', 'SHAPE');
    }
    const ranges = this.#written.get(name) ?? new WrittenRanges();
    this.#written.set(name, ranges);
    if (!ranges.add(byteOffset, end)) {
      const expected = `each byte of tensor ${name} once`;
      throw refuse(expected, `bytes ${byteOffset} to ${end} partly again`, 'Two writers hold the same part.', 'SHAPE');
    }
    this.#file.write(bytes, info.byteOffset + byteOffset);
  }

  /** Checks that every byte was written, flushes to the disk and gives the file its name. @throws DsError FORMAT, IO */
  finish(): void {
    for (const { name, byteLength } of this.#tensors.values()) {
      const done = this.#written.get(name)?.total ?? 0;
      if (done !== byteLength) {
        this.abort();
        throw refuse(`${byteLength} bytes for tensor ${name}`, `${done}`, 'Write every tensor before finish().');
      }
    }
    this.#file.commit();
  }

  /** Gives up; nothing is left behind. Harmless after `finish`. */
  abort(): void {
    this.#file.abort();
  }

  [Symbol.dispose](): void {
    this.abort();
  }
}

/**
 * Writes tensors that are in memory to a file.
 *
 * @throws DsError as `SafetensorsWriter`
 */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorData>,
  options: SafetensorsWriterOptions = {},
): void {
  const specs = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  using writer = SafetensorsWriter.create(path, specs, options);
  for (const [name, { bytes }] of tensors) writer.write(name, bytes);
  writer.finish();
}
