/**
 * The alphabet of byte-level BPE: each byte stands for itself as one printable character.
 *
 * Printable Latin-1 bytes keep their character, the other 68 take U+0100 and on, in order.
 * Source: Radford et al. 2019 (GPT-2), section 2.2 and its released encoder.
 */

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** Character of each byte. */
export const BYTE_CHARS: readonly string[] = Object.freeze(byteChars());

const BYTE_OF_CHAR: ReadonlyMap<string, number> = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

function byteChars(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
}

const encoder = new TextEncoder();

/** Writes a text's UTF-8 bytes as characters of the alphabet. */
export function toByteChars(text: string): string {
  let chars = '';
  for (const byte of encoder.encode(text)) chars += BYTE_CHARS[byte];
  return chars;
}

/** Returns the bytes that characters of the alphabet stand for, or undefined if one is not of the alphabet. */
export function fromByteChars(chars: string): Uint8Array | undefined {
  const bytes = new Uint8Array(chars.length);
  for (let i = 0; i < chars.length; i++) {
    const byte = BYTE_OF_CHAR.get(chars[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

/** Replaces each unpaired surrogate, which UTF-8 cannot hold, by U+FFFD. */
export function toWellFormed(text: string): string {
  return /\p{Cs}/u.test(text) ? text.replace(/\p{Cs}/gu, '\ufffd') : text;
}
