/** The model families as data: each turns a config.json into a description that the inference engine runs. */
import { DsError } from '@ds/core-native';
import type { CausalLM } from './causal-lm';
import type { Json } from './decoder/config-reader';
import type { DecoderDescription } from './decoder/description';
import { bloom } from './families/bloom';
import { gptNeoX } from './families/gpt-neox';
import { gpt2 } from './families/gpt2';
import { llama } from './families/llama';
import { mistral } from './families/mistral';
import { opt } from './families/opt';
import { phi3 } from './families/phi3';
import { qwen2, qwen3 } from './families/qwen';

export interface ModelFamily {
  /** `model_type` in config.json */
  readonly modelType: string;
  /** Describes the model that a config.json names. @throws FORMAT, UNSUPPORTED naming `source` and the key */
  describe(json: Json, source: string): DecoderDescription;
  /** Makes the model for training, where that is built. @throws FORMAT, UNSUPPORTED */
  create?(json: Json, source: string): CausalLM;
}

export const modelFamilies: readonly ModelFamily[] = [bloom, gpt2, opt, gptNeoX, llama, mistral, qwen2, qwen3, phi3];

const named = (families: readonly ModelFamily[]) =>
  families.map(({ modelType }) => JSON.stringify(modelType)).join(', ');

/** Finds the family of a config.json. @throws FORMAT without a model_type; UNSUPPORTED for one that is not built */
export function familyOf(json: Json, source = 'config.json'): ModelFamily {
  const family = modelFamilies.find(({ modelType }) => modelType === json.model_type);
  if (family) return family;
  throw new DsError({
    code: json.model_type === undefined ? 'FORMAT' : 'UNSUPPORTED',
    op: source,
    expected: `a model_type of ${named(modelFamilies)}`,
    actual: json.model_type === undefined ? 'none' : JSON.stringify(json.model_type),
    hint: 'model_type in config.json says how the weights are to be used',
  });
}

/** Makes the model of a config.json for training. @throws as `familyOf`; UNSUPPORTED for a family that can only be run */
export function createModel(json: Json, source = 'config.json'): CausalLM {
  const family = familyOf(json, source);
  if (family.create) return family.create(json, source);
  throw new DsError({
    code: 'UNSUPPORTED',
    op: source,
    expected: `a model_type that can be trained: ${named(modelFamilies.filter(({ create }) => create))}`,
    actual: JSON.stringify(family.modelType),
    hint: 'this family can be run: InferenceEngine.load, `ds generate`, `ds logits`',
  });
}
