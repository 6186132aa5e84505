/** The model families as data: how to read a config.json, and which of a file's tensors is which parameter. */
import { DsError } from '@ds/core-native';
import { bloomConfigFromJson } from './bloom/config';
import { Bloom } from './bloom/model';
import { matchBloomNames } from './bloom/names';
import type { CausalLM } from './causal-lm';

type Json = Readonly<Record<string, unknown>>;

export interface ModelFamily {
  /** `model_type` in config.json */
  readonly modelType: string;
  /** Describes the model that a config.json names. @throws FORMAT, UNSUPPORTED */
  create(json: Json, source: string): CausalLM;
  /** Finds the file's name of each parameter. @throws FORMAT naming what is missing or too many */
  matchNames(wanted: readonly string[], present: readonly string[], source: string): ReadonlyMap<string, string>;
}

export const modelFamilies: readonly ModelFamily[] = [
  {
    modelType: 'bloom',
    create: (json, source) => new Bloom(bloomConfigFromJson(json, source)),
    matchNames: matchBloomNames,
  },
];

/** Finds the family of a config.json. @throws FORMAT without a model_type; UNSUPPORTED for one that is not built */
export function familyOf(json: Json, source = 'config.json'): ModelFamily {
  const family = modelFamilies.find(({ modelType }) => modelType === json.model_type);
  if (family) return family;
  throw new DsError({
    code: json.model_type === undefined ? 'FORMAT' : 'UNSUPPORTED',
    op: source,
    expected: `model_type ${modelFamilies.map(({ modelType }) => JSON.stringify(modelType)).join(' or ')}`,
    actual: json.model_type === undefined ? 'none' : JSON.stringify(json.model_type),
    hint: 'model_type in config.json says how the weights are to be used',
  });
}
