/** Reads stdin: as lines, or whole. */
import { DsError } from '@ds/core-native';
import { LIMITS } from '@ds/io';

export interface Line {
  /** Without its end. */
  readonly text: string;
  /** From 1 on. */
  readonly number: number;
}

const newline = 10;

/**
 * Yields the lines of a stream. A line ends at \n alone (and drops a \r before it): U+2028 and its kin may stand inside
 * a JSON string, where Node's readline would cut.
 *
 * @throws FORMAT for bytes that are not UTF-8 and for a line beyond `LIMITS.jsonLineBytes`
 */
export async function* readLines(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Line, void> {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  let number = 1;
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      yield { text: decode([...parts, chunk.subarray(start, end)], number), number };
      parts = [];
      bytes = 0;
      number++;
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    parts.push(rest);
    bytes += rest.byteLength;
    if (bytes > LIMITS.jsonLineBytes)
      throw new DsError({
        code: 'FORMAT',
        op: `stdin, line ${number}`,
        expected: `at most ${LIMITS.jsonLineBytes} bytes`,
        actual: 'more',
        hint: 'Cut the text into several lines.',
      });
  }
  if (bytes > 0) yield { text: decode(parts, number), number };
}

/** Reads a stream to its end. @throws FORMAT for bytes that are not UTF-8 */
export async function readAll(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const chunk of stream) parts.push(chunk);
  return decode(parts, undefined);
}

function decode(parts: readonly Uint8Array[], line: number | undefined): string {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(parts));
    return line === undefined ? text : text.replace(/\r$/, '');
  } catch (cause) {
    throw new DsError({
      code: 'FORMAT',
      op: line === undefined ? 'stdin' : `stdin, line ${line}`,
      expected: 'UTF-8 text',
      actual: 'bytes that are not UTF-8',
      cause,
    });
  }
}
