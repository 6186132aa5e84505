/** Brings a model's weights from files into memory, piece by piece, checked before the first byte is read. */
import { DsError, type DType } from '@ds/core-native';
import type { TensorSource } from '@ds/io';
import type { FullStorage } from '@ds/nn';
import { throwIfAborted } from '../abort';

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

/** What weights may be stored as. Quantised files need more than a conversion. */
const fileDtypes: readonly string[] = ['f32', 'bf16', 'f16'];

/**
 * Fills `storage` from `source`.
 *
 * @param names the file's name of each parameter
 * @throws FORMAT, DTYPE naming a tensor of another shape or dtype, before anything is read; ABORTED
 */
export async function loadWeights(
  storage: FullStorage,
  names: ReadonlyMap<string, string>,
  source: TensorSource,
  options: LoadWeightsOptions = {},
): Promise<void> {
  const { pieceBytes = 4 << 20 } = options;
  checkTensors(storage, names, source);
  // In the order of the file, so that the disk is read in sequence.
  const parameterOf = new Map([...names].map(([parameter, name]) => [name, parameter]));
  const inOrder = source.names.filter((name) => parameterOf.has(name));
  const bytesTotal = inOrder.reduce((sum, name) => sum + source.info(name).byteLength, 0);
  const buffer = new Uint8Array(Math.min(pieceBytes, bytesTotal));
  let bytesDone = 0;
  for (const name of inOrder) {
    const { dtype, elementCount, byteLength } = source.info(name);
    const elementBytes = elementCount === 0 ? 1 : byteLength / elementCount;
    const pieceElements = Math.floor(pieceBytes / elementBytes);
    for (let start = 0; start < elementCount; start += pieceElements) {
      throwIfAborted('load', options.signal);
      const count = Math.min(pieceElements, elementCount - start);
      const piece = buffer.subarray(0, count * elementBytes);
      source.readInto(name, piece, start, count);
      storage.writePacked(parameterOf.get(name)!, dtype as DType, piece, start);
      // What is queued holds a copy of the piece: no more than one at a time.
      await storage.device.defaultStream.join();
      bytesDone += piece.byteLength;
      options.onProgress?.({ bytesDone, bytesTotal, tensor: name });
    }
  }
}

function checkTensors(storage: FullStorage, names: ReadonlyMap<string, string>, source: TensorSource): void {
  for (const [parameterName, name] of names) {
    const { dtype, shape } = source.info(name);
    const wanted = storage.parameter(parameterName).shape;
    const label = `${name} in ${source.path}`;
    if (!fileDtypes.includes(dtype))
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
