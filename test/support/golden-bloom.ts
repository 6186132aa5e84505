/** The tiny BLOOMs of test/golden in memory, without going through @ds/io: for tests below it. */

import { readFileSync } from 'node:fs';
import { type DeviceName, type DType, Tensor } from '@ds/core-native';
import { Bloom, bloomConfigFromJson, type FullStorage, holdFull, matchBloomNames } from '@ds/nn';
import { type GoldenModel, goldenPath, readGoldenTensors } from './golden';

export interface HeldBloom extends Disposable {
  readonly model: Bloom;
  readonly storage: FullStorage;
  /** Makes an i32 tensor [rows, columns]. */
  ids(rows: readonly ArrayLike<number>[]): Tensor;
}

export interface HoldBloomOptions {
  device?: DeviceName;
  dtype?: DType;
  gradients?: boolean;
  /** Keys of config.json to change. */
  overrides?: Record<string, unknown>;
}

/** Loads a tiny model, with other keys in config.json if wanted. */
export function holdBloom(name: GoldenModel, options: HoldBloomOptions = {}): HeldBloom {
  const { device = 'cpu', overrides, ...rest } = options;
  const json = JSON.parse(readFileSync(goldenPath(name, 'config.json'), 'utf8'));
  const model = new Bloom(bloomConfigFromJson({ ...json, ...overrides }));
  const tensors = readGoldenTensors(name, 'model.safetensors');
  const storage = holdFull(model, { device, ...rest });
  const names = matchBloomNames([...storage.parameters.keys()], [...tensors.keys()], name);
  for (const [parameter, tensor] of names) storage.write(parameter, tensors.get(tensor)!.values);
  return {
    model,
    storage,
    ids: (rows) =>
      Tensor.from(
        rows.flatMap((row) => Array.from(row)),
        [rows.length, rows[0]!.length],
        { dtype: 'i32', device },
      ),
    [Symbol.dispose]() {
      storage[Symbol.dispose]();
      model[Symbol.dispose]();
    },
  };
}

/** The largest |a - b|. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} and ${b.length} numbers`);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}

/** The Euclidean norm. */
export function norm(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}
