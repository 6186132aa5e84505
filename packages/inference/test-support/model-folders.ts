/** Copies of a golden model folder with something changed. */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type DType, packNumbers, unpackNumbers } from '@ds/core-native';
import { type FileDtype, openWeights, writeSafetensors } from '@ds/io';
import { type GoldenModel, goldenPath } from '../../../test/support/golden';
import type { DenseFamily } from '../../../test/support/golden-families';

export interface StoredTensor {
  dtype: FileDtype;
  shape: readonly number[];
  bytes: Uint8Array<ArrayBuffer>;
}

export type Tensors = Map<string, StoredTensor>;

/** A folder that is gone at the end of the block. */
export class ModelFolderCopy implements Disposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'ds-inference-'));

  readonly #source: string;

  constructor(model: GoldenModel | `families/${DenseFamily}`) {
    this.#source = goldenPath(model);
    const files = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];
    for (const file of files) if (existsSync(path.join(this.#source, file))) this.take(file);
  }

  /** Takes a file of the golden folder, under its own name or another. */
  take(file: string, as = file): this {
    cpSync(path.join(this.#source, file), path.join(this.folder, as));
    return this;
  }

  /** The contents of a file of the folder. */
  text(file: string): string {
    return readFileSync(path.join(this.folder, file), 'utf8');
  }

  /** Changes keys of a JSON file of the folder, or makes it. */
  json(file: string, changes: Record<string, unknown>): this {
    const target = path.join(this.folder, file);
    let json: Record<string, unknown> = {};
    try {
      json = JSON.parse(readFileSync(target, 'utf8'));
    } catch {}
    writeFileSync(target, JSON.stringify({ ...json, ...changes }));
    return this;
  }

  /** Changes the tensors of model.safetensors. */
  tensors(change: (tensors: Tensors) => void): this {
    const file = path.join(this.folder, 'model.safetensors');
    const tensors: Tensors = new Map();
    {
      using source = openWeights(file);
      for (const name of source.names) tensors.set(name, source.tensor(name));
    }
    change(tensors);
    writeSafetensors(file, tensors);
    return this;
  }

  /** Rounds all weights to a 16-bit dtype. */
  rounded(dtype: 'bf16' | 'f16'): this {
    return this.tensors((tensors) => {
      for (const [name, { bytes, shape }] of tensors) {
        const packed = packNumbers(dtype, new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4));
        tensors.set(name, { dtype, shape, bytes: new Uint8Array(packed.buffer as ArrayBuffer) });
      }
    });
  }

  remove(file: string): this {
    rmSync(path.join(this.folder, file));
    return this;
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Numbers as they are after a detour through a 16-bit dtype. */
export function roundTo(dtype: DType, values: ArrayLike<number>): Float64Array {
  return unpackNumbers(dtype, packNumbers(dtype, values));
}
