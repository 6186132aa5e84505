/** The golden numbers of the two tiny models, as read from test/golden. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { unpackNumbers } from '@ds/core-native';

export const goldenModels = ['bloom-tiny', 'bloom-tiny-h6'] as const;
export type GoldenModel = (typeof goldenModels)[number];

export interface GoldenPrompt {
  text: string;
  input_ids: number[];
  last_logits: number[];
  hidden: { name: string; shape: number[]; mean: number; abs_sum: number; l2: number }[];
  greedy_ids: number[];
  greedy_text: string;
  loss: number;
  sum_logprob: number;
}

export interface GoldenAdamW {
  losses: number[];
  grad_global_l2_before_clip: number[];
  param_l2: Record<string, number>;
}

export interface GoldenSampling {
  params: { repetition_penalty?: number; temperature?: number; top_k?: number; top_p?: number };
  kept_count: number;
  kept_ids: number[] | null;
  top5: [number, number][];
}

export interface Golden {
  params: number;
  prompts: GoldenPrompt[];
  padding: Record<'left' | 'right', { input_ids: number[][]; attention_mask: number[][] }>;
  apply_residual_connection_post_layernorm: { prompt: number; last_logits: number[] };
  sampling: GoldenSampling[];
  train: {
    input_ids: number[][];
    loss: number;
    micro_batch_losses: number[];
    grad_l2: Record<string, number>;
    grad_global_l2: number;
    hyper: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
    steps: number;
    adamw_decay_all: GoldenAdamW;
    adamw_megatron: GoldenAdamW;
  };
}

export interface GoldenTensor {
  shape: number[];
  values: Float32Array;
}

/** Where a golden file lies. */
export function goldenPath(...parts: string[]): string {
  return path.join(__dirname, '..', 'golden', ...parts);
}

export function readGolden(model: GoldenModel): Golden {
  return JSON.parse(readFileSync(goldenPath(model, 'golden.json'), 'utf8'));
}

/** Reads a small safetensors file of floats, widened to f32, of known origin; the reader for everything else is in @ds/io. */
export function readGoldenTensors(...parts: string[]): Map<string, GoldenTensor> {
  const file = readFileSync(goldenPath(...parts));
  const headerEnd = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, headerEnd).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const bytes = Uint8Array.from(file.subarray(headerEnd + data_offsets[0], headerEnd + data_offsets[1])).buffer;
    if (dtype === 'F32') tensors.set(name, { shape, values: new Float32Array(bytes) });
    else if (dtype === 'BF16' || dtype === 'F16') {
      const values = unpackNumbers(dtype === 'F16' ? 'f16' : 'bf16', new Uint16Array(bytes));
      tensors.set(name, { shape, values: Float32Array.from(values) });
    } else throw new Error(`${name} of ${parts.join('/')} is ${dtype}`);
  }
  return tensors;
}
