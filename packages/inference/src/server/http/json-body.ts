/** Reads the body of a request: never more bytes than allowed, never JSON that could hurt whoever walks it. */
import type { IncomingMessage } from 'node:http';
import { DsError } from '@ds/core-native';
import { type JsonValue, parseJson } from '@ds/io';
import { ApiError } from './api-error';

const BLOCK_BYTES = 64 << 10;

/**
 * Collects a body.
 *
 * Bytes are copied into blocks: a body that comes byte by byte would otherwise cost a hundred times its size in buffers.
 * @throws ApiError 413 as soon as it is known to be too large, before anything is kept of a body that says so itself
 */
export async function readBody(request: IncomingMessage, mostBytes: number): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > mostBytes) throw tooLarge(mostBytes);
  const blocks: Buffer[] = [];
  let filled = BLOCK_BYTES;
  let total = 0;
  // A refusal needs the connection that the body came by.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    total += chunk.length;
    if (total > mostBytes) throw tooLarge(mostBytes);
    for (let from = 0; from < chunk.length; ) {
      if (filled === BLOCK_BYTES) {
        blocks.push(Buffer.allocUnsafe(BLOCK_BYTES));
        filled = 0;
      }
      const copied = chunk.copy(blocks.at(-1)!, filled, from);
      from += copied;
      filled += copied;
    }
  }
  return Buffer.concat(blocks, total);
}

/**
 * Parses a body.
 *
 * @throws ApiError 400 for what is not JSON or not UTF-8, is too deep, names a key twice or `__proto__`, or holds half a character
 */
export function parseBody(bytes: Buffer, maxDepth: number): JsonValue {
  let value: JsonValue;
  try {
    value = parseJson('request', bytes, { source: 'the body', maxDepth });
  } catch (error) {
    if (!DsError.is(error)) throw error;
    throw invalidJson(`expected ${error.expected}, got ${error.actual}`);
  }
  checkTexts(value);
  return value;
}

/** Its recursion is bounded by the depth that was checked before. */
function checkTexts(value: JsonValue): void {
  if (typeof value === 'string') {
    if (isWellFormed(value)) return;
    throw invalidJson('expected texts of whole characters, got an unpaired surrogate');
  }
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (const element of value) checkTexts(element);
    return;
  }
  for (const key of Object.keys(value)) {
    if (key === '__proto__') throw invalidJson('expected ordinary keys, got "__proto__"');
    checkTexts(key);
    checkTexts(value[key]!);
  }
}

/** Whether no half of a surrogate pair stands alone. */
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

function invalidJson(message: string): ApiError {
  return ApiError.invalid(`The body is not acceptable JSON: ${message}.`, undefined, 'invalid_json');
}

function tooLarge(mostBytes: number): ApiError {
  return new ApiError({
    status: 413,
    message: `The body is larger than the ${mostBytes} bytes that are allowed.`,
    code: 'request_too_large',
  });
}
