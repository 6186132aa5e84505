/**
 * Every bound that a file from outside must respect, in one place.
 *
 * A model folder is untrusted: sizes are compared with these numbers before anything is allocated or parsed.
 * They sit well above what the largest released models need, and below what could exhaust a machine.
 */
export const LIMITS = Object.freeze({
  /** Header of a safetensors file. The format allows 100 MB; 25 MB holds over 100,000 tensors. */
  safetensorsHeaderBytes: 25_000_000,
  /** Bound of the format itself; no option raises the header beyond it. */
  safetensorsHeaderBytesHard: 100_000_000,
  tensors: 100_000,
  tensorRank: 8,
  tensorNameBytes: 512,
  jsonDepth: 64,
  configJsonBytes: 4 << 20,
  shardIndexBytes: 64 << 20,
  shards: 4096,
  tokenizerJsonBytes: 64 << 20,
  vocabularyTokens: 1_000_000,
  merges: 2_000_000,
  /** Tokens beside the vocabulary that are matched literally; each costs time at every position of a text. */
  addedTokens: 16_384,
  /** A regular expression of a pre-tokenizer; the longest in released models is about 700 characters. */
  patternChars: 8192,
  chatTemplateBytes: 256 << 10,
  /** JSON file of ready-made token ids, read whole. */
  tokenIdsJsonBytes: 256 << 20,
  /** Longest line of a JSON-lines file. */
  jsonLineBytes: 64 << 20,
});
