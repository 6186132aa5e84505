/**
 * Writes an engine's weights as a Hugging Face folder, unit by unit: at most one unit is whole at a time, and only rank 0
 * writes.
 */
import fs = require('node:fs');
import path = require('node:path');

import { keep } from '@ds/core-native';
import { type JsonObject, ModelFolderWriter, readTokenizerFiles } from '@ds/io';
import { bloomConfigToJson, exportedName } from '@ds/nn';
import type { UnitStorage, ZeroEngine } from '@ds/zero';
import type { ModelSource } from './model';

export interface ExportOptions {
  readonly folder: string;
  readonly model: ModelSource;
  /** Folder with the tokenizer's files; null where the ids have none. */
  readonly tokenizerFolder: string | null;
}

/** Writes the folder; all ranks call it alike. An older model at the same place is replaced. @throws IO, on rank 0 */
export async function exportModel(
  engine: ZeroEngine,
  { folder, model, tokenizerFolder }: ExportOptions,
): Promise<void> {
  const writer = engine.group.rank === 0 ? createWriter(engine, { folder, model, tokenizerFolder }) : undefined;
  try {
    for (const unit of engine.storages.keys()) {
      const pieces = engine.withFullUnit(unit, (storage) => (writer ? readUnit(storage) : []));
      for (const { name, bytes } of pieces) {
        const values = await bytes;
        writer!.write(name, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      }
      // The other ranks must not run ahead with gathers that rank 0 cannot answer yet.
      await engine.device.defaultStream.join();
    }
    writer?.finish();
  } finally {
    writer?.abort();
  }
}

function createWriter(engine: ZeroEngine, { folder, model, tokenizerFolder }: ExportOptions): ModelFolderWriter {
  fs.mkdirSync(path.dirname(path.resolve(folder)), { recursive: true });
  const dtype = engine.config.paramDtype === 'bf16' ? 'bf16' : 'f32';
  const { config } = model;
  return ModelFolderWriter.create(folder, {
    config: bloomConfigToJson(config, dtype === 'bf16' ? 'bfloat16' : 'float32') as JsonObject,
    generationConfig: {
      bos_token_id: config.bosTokenId,
      eos_token_id: config.eosTokenId,
      pad_token_id: config.padTokenId,
    },
    tensors: engine.plan.units.flatMap(({ layout }) =>
      layout.places.map(({ parameter: { name, shape } }) => ({ name: exportedName(name), dtype, shape })),
    ),
    files: tokenizerFolder === null ? {} : readTokenizerFiles(tokenizerFolder),
    overwrite: true,
  });
}

/** Queues the reading of a unit's parameters; they are read before the unit's memory is used again. */
function readUnit(storage: UnitStorage) {
  const full = storage.fullParam!;
  return storage.layout.places.map(({ parameter, offset }) => {
    using piece = keep(full.view(parameter.shape, offset));
    return { name: exportedName(parameter.name), bytes: piece.read() };
  });
}
