/** Finds a model's tensors among those of a file. */
import { DsError } from '@ds/core-native';

export interface WantedTensors {
  /** Without prefix. */
  readonly names: readonly string[];
  /** What some files put in front of the names. */
  readonly prefix: string;
  /** Names, without prefix, that may be there and are not read. */
  readonly ignored: readonly RegExp[];
}

/**
 * Finds the file's name of each wanted tensor, whether the file uses the prefix or not.
 * @throws FORMAT naming what is missing, too many, or there twice
 */
export function matchTensorNames(
  { names, prefix, ignored }: WantedTensors,
  present: readonly string[],
  source: string,
): Map<string, string> {
  const byName = new Map<string, string>();
  for (const name of present) {
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    if (ignored.some((pattern) => pattern.test(bare))) continue;
    const twin = byName.get(bare);
    if (twin !== undefined)
      throw new DsError({
        code: 'FORMAT',
        op: source,
        expected: `the tensor ${bare} once`,
        actual: `${twin} and ${name}`,
        hint: 'with and without prefix they are the same parameter: remove one',
      });
    byName.set(bare, name);
  }
  const known = new Set(names);
  const missing = names.filter((name) => !byName.has(name));
  const extra = [...byName.keys()].filter((name) => !known.has(name));
  if (missing.length > 0)
    throw new DsError({
      code: 'FORMAT',
      op: source,
      expected: `the tensors ${list(missing)}`,
      actual: extra.length > 0 ? `${list(extra)} instead` : `only the ${present.length} others`,
      hint: 'the weights do not belong to this config.json: another size, or an incomplete download',
    });
  if (extra.length > 0)
    throw new DsError({
      code: 'FORMAT',
      op: source,
      expected: `the ${names.length} tensors of this config`,
      actual: `also ${list(extra)}`,
      hint: 'the weights do not belong to this config.json: is its number of layers right?',
    });
  return new Map(names.map((name) => [name, byName.get(name)!]));
}

function list(names: readonly string[]): string {
  return `${names.slice(0, 5).join(', ')}${names.length > 5 ? `, and ${names.length - 5} more` : ''}`;
}
