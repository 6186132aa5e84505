/** The golden numbers of the tiny models of test/golden/families, made with transformers in float32. */
import { readFileSync } from 'node:fs';
import { type DecoderDescription, familyOf } from '@ds/nn';
import { goldenPath } from './golden';

export const denseFamilies = [
  'gpt2',
  'opt',
  'opt-proj',
  'llama',
  'llama-rope3',
  'mistral',
  'qwen2',
  'qwen3',
  'phi3',
  'phi3-longrope',
  'gpt_neox',
] as const;
export type DenseFamily = (typeof denseFamilies)[number];

/** The same config in the keys of transformers 5, and in those of released folders. */
export const configFiles = ['config.json', 'config.hub.json'] as const;

export interface FamilyPrompt {
  input_ids: number[];
  /** Behind the last token. */
  last_logits: number[];
  /** Over [T, C]: the embeddings as they enter layer 0, the output of each layer but the last, and of the whole decoder. */
  hidden_l2: number[];
  greedy_ids: number[];
  /** Mean over T - 1 targets; null for a single token. */
  loss: number | null;
}

export interface FamilyGolden {
  vocab_size: number;
  params: number;
  weight_files: Record<string, string>;
  prompts: FamilyPrompt[];
  /** Keys of config.json changed, null where taken away; logits of one prompt. */
  overrides: { config: Record<string, unknown>; prompt: number; last_logits: number[]; moved: number }[];
  /** The weights rounded to 16 bits, computed in float32. */
  half?: { file: string; prompt: number; last_logits: number[] }[];
}

export function familyPath(family: DenseFamily, ...parts: string[]): string {
  return goldenPath('families', family, ...parts);
}

export function readFamilyGolden(family: DenseFamily): FamilyGolden {
  return JSON.parse(readFileSync(familyPath(family, 'golden.json'), 'utf8'));
}

export function readFamilyConfig(family: DenseFamily, file: string = 'config.json'): Record<string, unknown> {
  return JSON.parse(readFileSync(familyPath(family, file), 'utf8'));
}

/** The description of a tiny model, with keys of its config changed if wanted. */
export function describeFamily(
  family: DenseFamily,
  changes: Record<string, unknown> = {},
  file: string = 'config.json',
): DecoderDescription {
  const config = { ...readFamilyConfig(family, file), ...changes };
  return familyOf(config, file).describe(config, file);
}
