/** Hugging Face's names of BLOOM's tensors. Our parameters carry them without the prefix, as the older files do. */
import { DsError } from '@ds/core-native';

const prefix = 'transformer.';
/** The head is tied to the embedding; some files repeat it. */
const tiedHead = 'lm_head.weight';

/**
 * Finds the file's name of each parameter, whichever prefix the file uses.
 * @throws FORMAT naming what is missing or too many
 */
export function matchBloomNames(
  wanted: readonly string[],
  present: readonly string[],
  source: string,
): Map<string, string> {
  const byName = new Map<string, string>();
  for (const name of present) {
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
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
  const missing = wanted.filter((name) => !byName.has(name));
  const known = new Set([...wanted, tiedHead]);
  const extra = [...byName.keys()].filter((name) => !known.has(name));
  const list = (names: string[]) =>
    `${names.slice(0, 5).join(', ')}${names.length > 5 ? `, and ${names.length - 5} more` : ''}`;
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
      expected: `the ${wanted.length} tensors of this config`,
      actual: `also ${list(extra)}`,
      hint: 'the weights do not belong to this config.json: is n_layer right?',
    });
  return new Map(wanted.map((name) => [name, byName.get(name)!]));
}

/** The name to write: with the prefix, as transformers does now. */
export function exportedName(name: string): string {
  return prefix + name;
}
