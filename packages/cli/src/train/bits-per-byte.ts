/** Losses in bits per byte of text, which can be compared between tokenizers. */
import type { HuggingFaceTokenizer } from '@ds/io';
import type { MicroBatch } from '@ds/zero';

/** Counts the bytes of text that the labels of micro-batches stand for; special tokens stand for none. */
export function labelBytes(batches: readonly MicroBatch[], tokenizer: HuggingFaceTokenizer): number {
  const special = new Set(tokenizer.specialTokens.values());
  // A token of a byte-level vocabulary is spelled with one character a byte.
  const bytesOf = (id: number) => (special.has(id) ? 0 : (tokenizer.idToToken(id)?.length ?? 0));
  const known = new Map<number, number>();
  let bytes = 0;
  for (const { rows } of batches)
    for (const row of rows)
      for (let t = 1; t < row.length; t++) {
        const id = row[t]!;
        let size = known.get(id);
        if (size === undefined) {
          size = bytesOf(id);
          known.set(id, size);
        }
        bytes += size;
      }
  return bytes;
}

/** Turns a mean loss in nats a token into bits a byte. */
export function bitsPerByte(loss: number, tokens: number, bytes: number): number {
  return (loss * tokens) / (bytes * Math.LN2);
}
