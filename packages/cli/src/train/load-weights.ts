/** First weights from a model folder, read piece by piece: a rank never holds more than the piece it asks for. */
import { DsError, type DType, unpackNumbers } from '@ds/core-native';
import { openWeights, type TensorSource } from '@ds/io';
import { type Bloom, matchBloomNames } from '@ds/nn';
import type { WeightSource } from '@ds/zero';

export interface OpenWeights extends Disposable {
  readonly source: WeightSource;
}

/** Opens a folder's weights for a model. @throws IO; FORMAT for missing, extra or misshaped tensors */
export function openWeightsFor(model: Bloom, folder: string): OpenWeights {
  const files = openWeights(folder);
  try {
    const { parameters } = model;
    const names = matchBloomNames(
      parameters.map(({ name }) => name),
      files.names,
      files.path,
    );
    for (const { name, shape } of parameters) checkTensor(files, names.get(name)!, shape);
    const source: WeightSource = (name, start, count) => readFloats(files, names.get(name)!, start, count);
    return { source, [Symbol.dispose]: () => files.close() };
  } catch (error) {
    files.close();
    throw error;
  }
}

const packedTypes = { f32: Float32Array, bf16: Uint16Array, f16: Uint16Array, f64: Float64Array } as const;

type FloatName = keyof typeof packedTypes;

function isFloat(dtype: string): dtype is FloatName & DType {
  return dtype in packedTypes;
}

function checkTensor(files: TensorSource, name: string, shape: readonly number[]): void {
  const info = files.info(name);
  const fail = (code: 'SHAPE' | 'DTYPE', expected: string, actual: string): never => {
    const hint = 'The weights do not belong to this config.json, or were stored for another program.';
    throw new DsError({ code, op: files.path, expected: `${expected} for ${name}`, actual, hint });
  };
  if (info.shape.join() !== shape.join()) fail('SHAPE', `[${shape.join(', ')}]`, `[${info.shape.join(', ')}]`);
  if (!isFloat(info.dtype)) fail('DTYPE', Object.keys(packedTypes).join(', '), info.dtype);
}

function readFloats(files: TensorSource, name: string, start: number, count: number): Float32Array {
  const dtype = files.info(name).dtype as FloatName & DType;
  const packed = new packedTypes[dtype](count);
  files.readInto(name, new Uint8Array(packed.buffer), start, count);
  return packed instanceof Float32Array ? packed : Float32Array.from(unpackNumbers(dtype, packed));
}
