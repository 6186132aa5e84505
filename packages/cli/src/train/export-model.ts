/**
 * Writes an engine's weights as a Hugging Face folder, unit by unit: at most one unit is whole at a time, and only rank 0
 * writes.
 */
import fs = require('node:fs');
import path = require('node:path');

import { keep } from '@ds/core-native';
import { type JsonObject, type ModelFolderContent, ModelFolderWriter, readTokenizerFiles } from '@ds/io';
import { type BloomConfig, bloomConfigToJson, exportedName } from '@ds/nn';
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
  const parameters = engine.plan.units.flatMap(({ layout }) => layout.places.map(({ parameter }) => parameter));
  const dtype = engine.config.paramDtype === 'bf16' ? 'bf16' : 'f32';
  const content = folderContent(model.config, { dtype, parameters, tokenizerFolder });
  fs.mkdirSync(path.dirname(path.resolve(folder)), { recursive: true });
  return ModelFolderWriter.create(folder, { ...content, overwrite: true });
}

const torchDtypes = { f32: 'float32', bf16: 'bfloat16', f16: 'float16' } as const;

export type ExportDtype = keyof typeof torchDtypes;

/** Describes the folder of a model: its files, and the tensors to come in the order of `parameters`. */
export function folderContent(
  config: BloomConfig,
  options: {
    readonly dtype: ExportDtype;
    readonly parameters: readonly { readonly name: string; readonly shape: readonly number[] }[];
    readonly tokenizerFolder: string | null;
  },
): ModelFolderContent {
  const { dtype, parameters, tokenizerFolder } = options;
  return {
    config: bloomConfigToJson(config, torchDtypes[dtype]) as JsonObject,
    generationConfig: {
      bos_token_id: config.bosTokenId,
      eos_token_id: config.eosTokenId,
      pad_token_id: config.padTokenId,
    },
    tensors: parameters.map(({ name, shape }) => ({ name: exportedName(name), dtype, shape })),
    files: tokenizerFolder === null ? {} : readTokenizerFiles(tokenizerFolder),
  };
}

/** Queues the reading of a unit's parameters; they are read before the unit's memory is used again. */
function readUnit(storage: UnitStorage) {
  const full = storage.fullParam!;
  return storage.layout.places.map(({ parameter, offset }) => {
    using piece = keep(full.view(parameter.shape, offset));
    return { name: exportedName(parameter.name), bytes: piece.read() };
  });
}
