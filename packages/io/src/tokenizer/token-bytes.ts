/** The bytes that a token adds to a text, which may be a part of a character. */
import { fromByteChars } from './byte-level';
import type { Tokenizer } from './tokenizer';

/**
 * Gives a token's bytes: what it decodes to by itself, or, where that is no whole text, what its spelling stands for in the
 * byte-level alphabet or as `<0xE2>`. Ids without a token have none.
 */
export function tokenBytes(tokenizer: Tokenizer, id: number): Uint8Array {
  const text = tokenizer.decode([id]);
  const token = tokenizer.idToToken(id) ?? '';
  if (!text.includes('\ufffd')) return new TextEncoder().encode(text);
  const byte = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
  return byte === undefined
    ? (fromByteChars(token) ?? new TextEncoder().encode(text))
    : Uint8Array.of(Number.parseInt(byte, 16));
}
