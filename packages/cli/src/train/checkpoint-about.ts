/** What a checkpoint keeps of its model beside the weights, so that `ds export` needs no more than the checkpoint. */
import fs = require('node:fs');
import path = require('node:path');

import { type BloomConfig, bloomConfigFromJson, bloomConfigToJson } from '@ds/nn';
import { checkpointsFolder } from './places';

export interface CheckpointAbout {
  /** Hugging Face's config.json. */
  readonly modelConfig: Readonly<Record<string, unknown>>;
  /** Folder of the tokenizer, from the folder of all checkpoints; null where the ids have none. */
  readonly tokenizer: string | null;
}

/** Says what the checkpoints of a run keep. */
export function aboutModel(config: BloomConfig, tokenizerFolder: string | null, output: string): CheckpointAbout {
  const modelConfig = bloomConfigToJson(config, 'float32');
  if (tokenizerFolder === null) return { modelConfig, tokenizer: null };
  return { modelConfig, tokenizer: path.relative(checkpointsFolder(output), tokenizerFolder) };
}

/** Reads that back, as far as a checkpoint says it. */
export function readAbout(
  extra: Readonly<Record<string, unknown>>,
  checkpoint: string,
): { config: BloomConfig | undefined; tokenizerFolder: string | undefined } {
  const { modelConfig, tokenizer } = extra as Partial<CheckpointAbout>;
  const folder = typeof tokenizer === 'string' ? path.resolve(path.dirname(checkpoint), tokenizer) : undefined;
  return {
    config: modelConfig && bloomConfigFromJson(modelConfig, checkpoint),
    tokenizerFolder: folder !== undefined && fs.existsSync(path.join(folder, 'tokenizer.json')) ? folder : undefined,
  };
}
