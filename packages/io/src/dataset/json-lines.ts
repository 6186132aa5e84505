/** Files of one JSON object `{"text": …}` a line, streamed. */
import fs from 'node:fs';
import { DsError } from '@ds/core-native';
import { openRegularFile, readExactly } from '../files/bounded-file';
import { isJsonObject, ownValue, parseJson } from '../json/strict-json';
import { LIMITS } from '../limits';

const OP = 'readJsonLines';
const CHUNK_BYTES = 1 << 20;
const NEWLINE = 0x0a;

/**
 * Yields the text of each line; blank lines are skipped.
 *
 * @throws DsError IO; FORMAT naming the line if it is no JSON object with a string `text`, or longer than 64 MB
 */
export function* readJsonLines(path: string): Generator<{ name: string; text: string }> {
  let number = 0;
  for (const line of readLines(path)) {
    const name = `${path}:${++number}`;
    if (line.byteLength === 0 || line.every(isBlank)) continue;
    const value = parseJson(OP, line, { source: name });
    const text = isJsonObject(value) ? ownValue(value, 'text') : undefined;
    if (typeof text !== 'string') {
      const hint = 'Each line holds one object with the document as "text".';
      throw new DsError({
        code: 'FORMAT',
        op: OP,
        expected: `{"text": "…"} in ${name}`,
        actual: 'no such field',
        hint,
      });
    }
    yield { name, text };
  }
}

const isBlank = (byte: number): boolean => byte === 0x20 || byte === 0x09 || byte === 0x0d;

/** Yields the bytes between newlines; the view is valid until the next. */
function* readLines(path: string): Generator<Uint8Array> {
  const { fd, bytes } = openRegularFile(OP, path);
  try {
    let pending = new Uint8Array(0);
    for (let position = 0; position < bytes; position += CHUNK_BYTES) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, bytes - position));
      readExactly(OP, path, fd, chunk, position);
      let begin = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, begin)) {
        const part = chunk.subarray(begin, end);
        yield pending.byteLength === 0 ? part : Buffer.concat([pending, part]);
        pending = new Uint8Array(0);
        begin = end + 1;
      }
      const rest = chunk.subarray(begin);
      if (pending.byteLength + rest.byteLength > LIMITS.jsonLineBytes) {
        const expected = `lines of at most ${LIMITS.jsonLineBytes} bytes in ${path}`;
        const hint = 'Is it a JSON-lines file? Each document goes on a line of its own.';
        throw new DsError({ code: 'FORMAT', op: OP, expected, actual: 'a longer one', hint });
      }
      pending = pending.byteLength === 0 ? rest : Buffer.concat([pending, rest]);
    }
    if (pending.byteLength > 0) yield pending;
  } finally {
    fs.closeSync(fd);
  }
}
