/** Brings a decoder's weights from files into memory, packed as they come, checked before the first byte is read. */
import {
  type Device,
  DsError,
  keep,
  type PackedFormat,
  PackedWeight,
  type RowNorm,
  Tensor,
  unpackNumbers,
  withOwner,
} from '@ds/core-native';
import type { TensorSource } from '@ds/io';
import type { LinearLayer, NormLayer, StoredWeight } from '@ds/nn';
import { throwIfAborted } from '../abort';
import { fileDtypes, type Piece, piecesOf } from './stored-pieces';

/** How far loading is. */
export interface LoadProgress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** The tensor that was read last, by the file's name. */
  readonly tensor: string;
}

export interface LoadWeightsOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Read at once; default 4 MiB: large enough for the disk, small enough that the event loop runs in between. */
  readonly pieceBytes?: number;
}

export interface PackedLayer {
  readonly weight: PackedWeight;
  readonly bias: Tensor | undefined;
}

interface Task {
  readonly stored: StoredWeight;
  take(piece: Piece): void;
}

/** Memory for a model's weights, and what will fill it. Whoever describes a layer gets its weights at once, still empty. */
export class WeightStore implements Disposable {
  readonly #device: Device;
  readonly #format: PackedFormat;
  readonly #tasks: Task[] = [];
  readonly #own: Disposable[] = [];

  /** @param format what matrices are packed as; vectors are f32 */
  constructor(device: Device, format: PackedFormat) {
    this.#device = device;
    this.#format = format;
  }

  /** A matrix [rows, columns]; `gated`: gates above what they multiply. @throws OOM */
  matrix(stored: StoredWeight, gated = false): PackedWeight {
    const [rows, columns] = stored.shape as [number, number];
    const options = { format: this.#format, rows, columns, gated, device: this.#device };
    const weight = withOwner('parameters', () => PackedWeight.empty(options));
    this.#own.push(weight);
    this.#tasks.push({
      stored,
      take: ({ dtype, bytes, rows: count, firstRow }) => {
        using piece = keep(Tensor.empty([count, columns], { dtype, device: this.#device }));
        piece.writeBytes(bytes);
        weight.write(piece, firstRow);
      },
    });
    return weight;
  }

  /** A tensor of f32 of the stored shape, not packed. @throws OOM */
  tensor(stored: StoredWeight): Tensor {
    const tensor = withOwner('parameters', () => keep(Tensor.empty(stored.shape, { device: this.#device })));
    this.#own.push(tensor);
    const columns = stored.shape[1] ?? 1;
    this.#tasks.push({
      stored,
      take: ({ dtype, bytes, rows, firstRow }) => {
        const shape = [rows * columns];
        using target = keep(tensor.view(shape, firstRow * columns));
        const Packed = dtype === 'f32' ? Float32Array : Uint16Array;
        target.write(unpackNumbers(dtype, new Packed(Uint8Array.from(bytes).buffer)));
      },
    });
    return tensor;
  }

  linear({ weight, bias }: LinearLayer, gated = false): PackedLayer {
    return { weight: this.matrix(weight, gated), bias: bias && this.tensor(bias) };
  }

  norm({ kind, eps, weight, bias }: NormLayer): RowNorm {
    return { kind, eps, weight: this.tensor(weight), ...(bias ? { bias: this.tensor(bias) } : {}) };
  }

  /**
   * Fills everything that was asked for, in the order in which the files hold it.
   *
   * @param names the file's name of each stored tensor
   * @throws IO; ABORTED
   */
  async fill(
    source: TensorSource,
    names: ReadonlyMap<string, string>,
    options: LoadWeightsOptions = {},
  ): Promise<void> {
    const { pieceBytes = 4 << 20, signal, onProgress } = options;
    const places = new Map(source.names.map((name, i) => [name, i]));
    const placeOf = ({ stored }: Task) => places.get(names.get(stored.parts[0]!.tensor)!)!;
    const bytesTotal = [...names.values()].reduce((sum, name) => sum + source.info(name).byteLength, 0);
    let bytesDone = 0;
    for (const task of this.#tasks.sort((a, b) => placeOf(a) - placeOf(b)))
      for (const piece of piecesOf(task.stored, source, names, pieceBytes)) {
        throwIfAborted('load', signal);
        task.take(piece);
        // What is queued holds a copy of the piece: no more than one at a time.
        await this.#device.defaultStream.join();
        bytesDone += piece.bytes.byteLength;
        onProgress?.({ bytesDone, bytesTotal, tensor: piece.tensor });
      }
    this.#tasks.length = 0;
  }

  [Symbol.dispose](): void {
    for (const weight of this.#own) weight[Symbol.dispose]();
    this.#own.length = 0;
  }
}

/**
 * Checks shape and dtype of every tensor of a model.
 *
 * @param shapes what a model wants, by name without prefix
 * @throws FORMAT, DTYPE naming the tensor
 */
export function checkTensors(
  shapes: ReadonlyMap<string, readonly number[]>,
  source: TensorSource,
  names: ReadonlyMap<string, string>,
): void {
  for (const [bare, name] of names) {
    const { dtype, shape } = source.info(name);
    const wanted = shapes.get(bare)!;
    const label = `${name} in ${source.path}`;
    if (!(fileDtypes as readonly string[]).includes(dtype))
      throw new DsError({
        code: 'DTYPE',
        op: 'load',
        expected: `${fileDtypes.join(', ')} for tensor ${label}`,
        actual: dtype,
        hint: 'save the model with floating-point weights',
      });
    if (shape.length !== wanted.length || shape.some((size, i) => size !== wanted[i]))
      throw new DsError({
        code: 'FORMAT',
        op: 'load',
        expected: `[${wanted.join(', ')}] for tensor ${label}`,
        actual: `[${shape.join(', ')}]`,
        hint: 'the weights do not belong to the config.json beside them',
      });
  }
}
