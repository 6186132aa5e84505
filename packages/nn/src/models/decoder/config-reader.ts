/** Reads keys of a config.json: of the right kind, or an error that names file and key. */
import { DsError, type DsErrorCode } from '@ds/core-native';
import type { Activation } from './description';

export type Json = Readonly<Record<string, unknown>>;

const activations: Readonly<Record<string, Activation>> = {
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu_exact',
  gelu_new: 'gelu',
  gelu_fast: 'gelu',
  gelu_pytorch_tanh: 'gelu',
};

/** A key, or several names of one in the order in which they count. null is the same as absent, as transformers has it. */
export type Keys = string | readonly string[];

export class ConfigReader {
  readonly json: Json;
  /** File, and section of it, for errors. */
  readonly source: string;

  constructor(json: Json, source: string) {
    this.json = json;
    this.source = source;
  }

  /** The value of the first key that has one. */
  value(keys: Keys): { readonly key: string; readonly value: unknown } | undefined {
    for (const key of [keys].flat()) {
      const value = Object.hasOwn(this.json, key) ? this.json[key] : undefined;
      if (value !== undefined && value !== null) return { key, value };
    }
    return undefined;
  }

  /** @throws FORMAT for another kind, or without the key where there is no fallback */
  number(keys: Keys, fallback?: number): number {
    const found = this.value(keys);
    if (!found) return fallback ?? this.#missing(keys);
    if (typeof found.value === 'number' && Number.isFinite(found.value)) return found.value;
    return this.refuse('FORMAT', `a number for ${found.key}`, JSON.stringify(found.value));
  }

  /** A whole number >= 1. */
  count(keys: Keys, fallback?: number): number {
    const value = this.number(keys, fallback);
    if (Number.isInteger(value) && value >= 1) return value;
    return this.refuse('FORMAT', `a whole number >= 1 for ${[keys].flat().join(' or ')}`, String(value));
  }

  /** The count of the first of these keys that has one. */
  optionalCount(keys: Keys): number | undefined {
    return this.value(keys) && this.count(keys);
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.value(key)?.value ?? fallback;
    return typeof value === 'boolean'
      ? value
      : this.refuse('FORMAT', `true or false for ${key}`, JSON.stringify(value));
  }

  /** Numbers above 0. */
  numbers(key: string): readonly number[] {
    const value = this.value(key)?.value ?? this.#missing(key);
    if (Array.isArray(value) && value.every((n) => typeof n === 'number' && Number.isFinite(n) && n > 0)) return value;
    return this.refuse('FORMAT', `a list of numbers > 0 for ${key}`, JSON.stringify(value));
  }

  /** An id, a list of them, or none. */
  ids(key: string): readonly number[] {
    const ids = [this.value(key)?.value ?? []].flat();
    if (ids.every((id) => Number.isInteger(id) && (id as number) >= 0)) return ids as number[];
    return this.refuse('FORMAT', `an id or a list of ids for ${key}`, JSON.stringify(this.json[key]));
  }

  activation(key: string, fallback?: string): Activation {
    const name = this.value(key)?.value ?? fallback ?? this.#missing(key);
    const activation = typeof name === 'string' && Object.hasOwn(activations, name) ? activations[name] : undefined;
    return (
      activation ??
      this.refuse('UNSUPPORTED', `${Object.keys(activations).join(', ')} for ${key}`, JSON.stringify(name))
    );
  }

  /** An object inside the config. */
  section(key: string): ConfigReader | undefined {
    const value = this.value(key)?.value;
    if (value === undefined) return undefined;
    if (typeof value === 'object' && !Array.isArray(value))
      return new ConfigReader(value as Json, `${this.source}, ${key}`);
    return this.refuse('FORMAT', `an object for ${key}`, JSON.stringify(value));
  }

  refuse(code: DsErrorCode, expected: string, actual: string, hint = ''): never {
    throw new DsError({ code, op: this.source, expected, actual, hint });
  }

  #missing(keys: Keys): never {
    return this.refuse(
      'FORMAT',
      `the key ${[keys].flat().join(' or ')}`,
      `only ${Object.keys(this.json).join(', ')}`,
      'config.json names the sizes of the model: is this another kind of model, or an incomplete download?',
    );
  }
}
