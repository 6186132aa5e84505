/** Writes a checkpoint: every rank the shards it owns, all at once, and complete or not at all. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError, keep, type ProcessGroup, type Tensor } from '@ds/core-native';
import { SafetensorsWriter } from '@ds/io';
import type { ZeroEngine } from '../engine/engine';
import { shardRanges } from '../partition/unit-layout';
import type { UnitStorage } from '../partition/unit-storage';
import {
  type CheckpointManifest,
  checkTag,
  latestName,
  manifestName,
  pieceName,
  replacedPath,
  savingPath,
  statesFileName,
  statesOf,
} from './layout';

/**
 * Saves weights, optimizer state and schedule under DIR/TAG. All ranks call it alike, between two steps.
 *
 * Whenever the process dies, the last complete checkpoint stays: the new one gets its name by a rename, after every
 * byte of every rank is on the disk. Promised for local POSIX file systems.
 * @param extra what the caller wants back from `loadCheckpoint`
 * @throws IO, on all ranks, when one of them could not write; nothing is left behind then
 */
export async function saveCheckpoint(
  engine: ZeroEngine,
  dir: string,
  tag: string,
  extra: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  checkTag(tag);
  const { group } = engine;
  const saving = savingPath(dir, tag);
  await together(group, 'make the folder', () => {
    if (group.rank !== 0) return;
    fs.rmSync(saving, { recursive: true, force: true });
    fs.mkdirSync(saving, { recursive: true });
  });
  try {
    await together(group, 'write the states', () => writeStates(engine, saving));
    await together(group, 'complete the checkpoint', () => {
      if (group.rank === 0) complete(engine, dir, tag, extra);
    });
  } catch (error) {
    if (group.rank === 0) fs.rmSync(saving, { recursive: true, force: true });
    throw error;
  }
}

/** Does one step on all ranks and makes a failure of one the failure of all. */
async function together(group: ProcessGroup, what: string, fn: () => void | Promise<void>): Promise<void> {
  let failure: unknown;
  try {
    await fn();
  } catch (error) {
    failure = error;
  }
  const reports = await group.exchange(failure === undefined ? '' : String((failure as Error).message ?? failure));
  const rank = reports.findIndex((report) => report !== '');
  if (rank === -1) return;
  if (failure !== undefined) throw failure;
  throw new DsError({
    code: 'IO',
    op: 'saveCheckpoint',
    expected: `all ranks to ${what}`,
    actual: `a failure on rank ${rank}: ${reports[rank]}`,
    hint: 'the earlier checkpoint is still there',
  });
}

/** This rank's shard of a state, wherever the policy keeps it. */
function shardOf({ layout, policy }: UnitStorage, state: Tensor, rank: number): Tensor {
  const { shardElements } = layout;
  return state.view([shardElements], policy.optim === 'none' ? rank * shardElements : 0);
}

async function writeStates(engine: ZeroEngine, saving: string): Promise<void> {
  const { group, storages } = engine;
  const pieces = storages.flatMap((storage) =>
    shardRanges(storage.layout, group.rank).flatMap((range) =>
      statesOf(storage).map(([state]) => ({
        storage,
        range,
        state,
        start: range.parameterStart,
        parameter: range.parameter.name,
      })),
    ),
  );
  const file = path.join(saving, statesFileName(group.rank, group.size));
  using writer = SafetensorsWriter.create(
    file,
    pieces.map((piece) => ({ name: pieceName(piece), dtype: 'f32', shape: [piece.range.count] })),
  );
  for (const storage of storages)
    for (const [state, tensor] of statesOf(storage)) {
      using shard = keep(shardOf(storage, tensor, group.rank));
      const values = await shard.read<'f32'>();
      for (const piece of pieces) {
        if (piece.storage !== storage || piece.state !== state) continue;
        const { shardStart, count } = piece.range;
        writer.write(pieceName(piece), new Uint8Array(values.buffer, shardStart * 4, count * 4));
      }
    }
  writer.finish();
}

function complete(engine: ZeroEngine, dir: string, tag: string, extra: Readonly<Record<string, unknown>>): void {
  const { group, plan, storages } = engine;
  const saving = savingPath(dir, tag);
  const manifest: CheckpointManifest = {
    format: 'ds-checkpoint',
    version: 1,
    stepsTaken: engine.stepsTaken,
    scheduler: engine.scheduler.state(),
    writer: { world: group.size, stage: engine.config.zero.stage },
    parameters: plan.units.flatMap(({ layout }) =>
      layout.places.map(({ parameter: { name, shape } }) => ({ name, shape })),
    ),
    ...(storages[0] ? { states: statesOf(storages[0]).map(([state]) => state) } : {}),
    files:
      storages.length === 0 ? [] : Array.from({ length: group.size }, (_, rank) => statesFileName(rank, group.size)),
    extra,
  };
  writeDurably(path.join(saving, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
  syncFolder(saving);
  const final = path.join(dir, tag);
  const replaced = replacedPath(dir, tag);
  fs.rmSync(replaced, { recursive: true, force: true });
  if (fs.existsSync(final)) fs.renameSync(final, replaced);
  fs.renameSync(saving, final);
  syncFolder(dir);
  writeDurably(path.join(dir, `.${latestName}`), tag);
  fs.renameSync(path.join(dir, `.${latestName}`), path.join(dir, latestName));
  syncFolder(dir);
  fs.rmSync(replaced, { recursive: true, force: true });
}

function writeDurably(file: string, text: string): void {
  const fd = fs.openSync(file, 'w');
  try {
    fs.writeFileSync(fd, text);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** A rename is on the disk once its folder is. */
function syncFolder(dir: string): void {
  const fd = fs.openSync(dir, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
