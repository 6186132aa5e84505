/**
 * What a checkpoint is on disk. It does not depend on the world size: states are stored by parameter and range.
 *
 *     DIR/latest                       the tag of the last complete checkpoint
 *     DIR/TAG/checkpoint.json          what it is; its presence says that the rest is complete
 *     DIR/TAG/states-R-of-N.safetensors   fp32 pieces, named PARAMETER@START/STATE
 *
 * Everything is written to DIR/.TAG.saving, which becomes DIR/TAG by one rename when every rank is done.
 */
import path = require('node:path');

import { DsError, type Tensor } from '@ds/core-native';
import type { UnitStorage } from '../partition/unit-storage';

/** The states that an element may have, by DeepSpeed's names: master weight and moments. */
export const stateNames = ['fp32', 'exp_avg', 'exp_avg_sq'] as const;

export type StateName = (typeof stateNames)[number];

/** The states that a unit's optimizer keeps; Lion has no second moment. */
export function statesOf({ master, m, v }: UnitStorage): [StateName, Tensor][] {
  const states: [StateName, Tensor][] = [
    ['fp32', master],
    ['exp_avg', m],
  ];
  if (v) states.push(['exp_avg_sq', v]);
  return states;
}

export interface CheckpointManifest {
  readonly format: 'ds-checkpoint';
  readonly version: 1;
  readonly stepsTaken: number;
  readonly scheduler: { readonly type: string; readonly completedSteps: number };
  /** What wrote it; of no consequence to who reads it. */
  readonly writer: { readonly world: number; readonly stage: number };
  readonly parameters: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Of every parameter. Checkpoints from before there was a choice do not say it, and have them all. */
  readonly states?: readonly StateName[];
  readonly files: readonly string[];
  /** What the caller keeps beside the model: data position, model config, ... */
  readonly extra: Readonly<Record<string, unknown>>;
}

/** A run of one parameter's elements in one file. */
export interface Piece {
  readonly parameter: string;
  readonly state: StateName;
  readonly start: number;
}

export function pieceName({ parameter, state, start }: Piece): string {
  return `${parameter}@${start}/${state}`;
}

/** Reads a piece's name back. @throws CHECKPOINT */
export function parsePieceName(name: string, file: string): Piece {
  const match = /^(.*)@(\d+)\/(fp32|exp_avg|exp_avg_sq)$/.exec(name);
  if (!match)
    throw new DsError({
      code: 'CHECKPOINT',
      op: file,
      expected: 'tensors named PARAMETER@START/STATE',
      actual: name,
      hint: 'this is not a file of a checkpoint; to load a Hugging Face folder, give it as the model',
    });
  return { parameter: match[1]!, start: Number(match[2]), state: match[3] as StateName };
}

export const manifestName = 'checkpoint.json';
export const latestName = 'latest';

export function statesFileName(rank: number, world: number): string {
  const digits = (n: number) => String(n).padStart(5, '0');
  return `states-${digits(rank)}-of-${digits(world)}.safetensors`;
}

/** Where a checkpoint is while it is not complete. */
export function savingPath(dir: string, tag: string): string {
  return path.join(dir, `.${tag}.saving`);
}

/** Where a complete checkpoint waits while a new one takes its name. */
export function replacedPath(dir: string, tag: string): string {
  return path.join(dir, `.${tag}.replaced`);
}

/** Refuses tags that are no plain file name. @throws CONFIG */
export function checkTag(tag: string): void {
  if (/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(tag)) return;
  throw new DsError({
    code: 'CONFIG',
    op: 'checkpoint',
    expected: 'a tag of letters, digits, ".", "_" and "-"',
    actual: JSON.stringify(tag),
    hint: 'for example "step-100"',
  });
}
