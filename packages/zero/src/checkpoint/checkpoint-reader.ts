/** Reads a checkpoint by parameter and range, whoever wrote it on however many ranks. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError } from '@ds/core-native';
import { SafetensorsFile } from '@ds/io';
import {
  type CheckpointManifest,
  checkTag,
  latestName,
  manifestName,
  parsePieceName,
  replacedPath,
  type StateName,
  stateNames,
} from './layout';

interface StoredPiece {
  readonly file: SafetensorsFile;
  readonly name: string;
  readonly start: number;
  readonly count: number;
}

export class CheckpointReader implements Disposable {
  /** The folder of the tag. */
  readonly path: string;
  readonly manifest: CheckpointManifest;
  readonly #files: SafetensorsFile[] = [];
  /** By "PARAMETER/STATE", in the order of their start. */
  readonly #pieces = new Map<string, StoredPiece[]>();

  private constructor(folder: string, manifest: CheckpointManifest) {
    this.path = folder;
    this.manifest = manifest;
  }

  /**
   * Opens a checkpoint and checks that its pieces cover every parameter once.
   * @param tag default: what DIR/latest names; DIR may also be the folder of a tag itself
   * @throws CHECKPOINT when there is none, or it is not whole
   */
  static open(dir: string, tag?: string): CheckpointReader {
    const folder = findFolder(dir, tag);
    const reader = new CheckpointReader(folder, readManifest(folder));
    try {
      reader.#index();
    } catch (error) {
      reader[Symbol.dispose]();
      throw error;
    }
    return reader;
  }

  /** Reads elements [start, start + count) of a parameter's state, fp32. */
  read(parameter: string, state: StateName, start: number, count: number): Float32Array {
    const values = new Float32Array(count);
    for (const piece of this.#pieces.get(`${parameter}/${state}`) ?? []) {
      const from = Math.max(start, piece.start);
      const to = Math.min(start + count, piece.start + piece.count);
      if (from >= to) continue;
      const target = new Uint8Array(values.buffer, (from - start) * 4, (to - from) * 4);
      piece.file.readInto(piece.name, target, from - piece.start, to - from);
    }
    return values;
  }

  /** What is stored of every parameter. */
  get states(): readonly StateName[] {
    return this.manifest.states ?? stateNames;
  }

  [Symbol.dispose](): void {
    for (const file of this.#files) file.close();
    this.#files.length = 0;
  }

  #index(): void {
    for (const name of this.manifest.files) {
      const file = SafetensorsFile.open(path.join(this.path, name));
      this.#files.push(file);
      for (const tensor of file.names) {
        const { parameter, state, start } = parsePieceName(tensor, file.path);
        const key = `${parameter}/${state}`;
        const pieces = this.#pieces.get(key) ?? [];
        this.#pieces.set(key, pieces);
        pieces.push({ file, name: tensor, start, count: file.info(tensor).elementCount });
      }
    }
    for (const { name, shape } of this.manifest.parameters)
      for (const state of this.states) {
        const pieces = this.#pieces.get(`${name}/${state}`) ?? [];
        pieces.sort((a, b) => a.start - b.start);
        let covered = 0;
        for (const piece of pieces) {
          if (piece.start !== covered) break;
          covered += piece.count;
        }
        const numel = shape.reduce((n, d) => n * d, 1);
        if (covered !== numel)
          throw new DsError({
            code: 'CHECKPOINT',
            op: this.path,
            expected: `all ${numel} elements of ${name} (${state}), each once`,
            actual: `the first ${covered} only`,
            hint: 'a file of the checkpoint is missing or was changed; load an earlier checkpoint',
          });
      }
  }
}

function isComplete(folder: string): boolean {
  return fs.existsSync(path.join(folder, manifestName));
}

function findFolder(dir: string, tag: string | undefined): string {
  if (tag === undefined && isComplete(dir)) return dir;
  const wanted = tag ?? readLatest(dir);
  checkTag(wanted);
  const folder = path.join(dir, wanted);
  if (isComplete(folder)) return folder;
  // The writer died between the two renames that put a new checkpoint in the place of an old one of that name.
  const replaced = replacedPath(dir, wanted);
  if (isComplete(replaced)) return replaced;
  const others = fs.existsSync(dir) ? fs.readdirSync(dir).filter((name) => isComplete(path.join(dir, name))) : [];
  throw new DsError({
    code: 'CHECKPOINT',
    op: dir,
    expected: `a complete checkpoint "${wanted}"`,
    actual: others.length > 0 ? `only ${others.join(', ')}` : 'none',
    hint: others.length > 0 ? 'name one of them' : 'nothing was saved here yet',
  });
}

function readLatest(dir: string): string {
  try {
    return fs.readFileSync(path.join(dir, latestName), 'utf8').trim();
  } catch (cause) {
    throw new DsError({
      code: 'CHECKPOINT',
      op: dir,
      expected: `a folder of checkpoints, with a file "${latestName}"`,
      actual: 'none there',
      hint: 'nothing was saved here yet; check the path',
      cause,
    });
  }
}

function readManifest(folder: string): CheckpointManifest {
  const file = path.join(folder, manifestName);
  let manifest: Partial<CheckpointManifest>;
  try {
    manifest = JSON.parse(fs.readFileSync(file, 'utf8')) as Partial<CheckpointManifest>;
  } catch (cause) {
    throw new DsError({ code: 'CHECKPOINT', op: file, expected: 'JSON', actual: String(cause), cause });
  }
  const whole =
    manifest.format === 'ds-checkpoint' &&
    manifest.version === 1 &&
    Number.isSafeInteger(manifest.stepsTaken) &&
    Array.isArray(manifest.parameters) &&
    Array.isArray(manifest.files) &&
    manifest.files.every((name) => /^states-\d+-of-\d+\.safetensors$/.test(name)) &&
    typeof manifest.scheduler === 'object' &&
    (manifest.states ?? stateNames).every((name) => stateNames.includes(name));
  if (!whole)
    throw new DsError({
      code: 'CHECKPOINT',
      op: file,
      expected: 'a checkpoint of format "ds-checkpoint", version 1',
      actual: `format ${JSON.stringify(manifest.format)}, version ${JSON.stringify(manifest.version)}`,
      hint: 'it was written by another program, or changed',
    });
  return manifest as CheckpointManifest;
}
