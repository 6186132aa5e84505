/** Hugging Face's names of BLOOM's tensors. Our parameters carry them without the prefix, as the older files do. */
import { matchTensorNames } from '../decoder/tensor-names';

export const bloomPrefix = 'transformer.';
/** The head is tied to the embedding; some files repeat it. */
export const tiedHead = /^lm_head\.weight$/;

/**
 * Finds the file's name of each parameter, whichever prefix the file uses.
 * @throws FORMAT naming what is missing or too many
 */
export function matchBloomNames(
  wanted: readonly string[],
  present: readonly string[],
  source: string,
): Map<string, string> {
  return matchTensorNames({ names: wanted, prefix: bloomPrefix, ignored: [tiedHead] }, present, source);
}

/** The name to write: with the prefix, as transformers does now. */
export function exportedName(name: string): string {
  return bloomPrefix + name;
}
