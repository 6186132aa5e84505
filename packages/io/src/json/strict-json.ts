/**
 * JSON from untrusted files: valid UTF-8, bounded depth, no duplicate keys.
 *
 * `JSON.parse` keeps the last of two equal keys and says nothing, so a second `data_offsets` could hide the first.
 * A linear scan without recursion looks for duplicates and depth; `JSON.parse` then decides what is valid JSON.
 */
import { DsError } from '@ds/core-native';
import { LIMITS } from '../limits';

/** A JSON value; objects keep only own keys, `__proto__` included. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

export interface ParseJsonOptions {
  /** What is parsed, as it should appear in an error: a path, with the part of the file where needed. */
  readonly source: string;
  readonly maxDepth?: number;
  /** Refuse numbers that are not plain non-negative integers, which `JSON.parse` could round (1e3, 1.0, 2^53 + 1). */
  readonly onlyIntegers?: boolean;
}

interface Fault {
  readonly offset: number;
  readonly expected: string;
  readonly actual: string;
}

/** Says whether a parsed value is an object (not null, not an array). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Says whether `object` has `key` itself, so that inherited names such as `constructor` are never read. */
export function ownValue(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/**
 * Parses JSON bytes.
 *
 * @param op name of the calling operation, for error messages
 * @throws DsError FORMAT with source and offset: not UTF-8, not JSON, too deep, a key given twice, a number out of range
 */
export function parseJson(op: string, bytes: Uint8Array, options: ParseJsonOptions): JsonValue {
  let text: string;
  try {
    // ignoreBOM keeps a byte order mark in the text, where JSON.parse refuses it.
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw formatError(op, options.source, 'UTF-8 text', 'bytes that are not UTF-8', error);
  }
  const fault = scan(text, options.maxDepth ?? LIMITS.jsonDepth, options.onlyIntegers ?? false);
  if (fault) throw formatError(op, `${options.source} at character ${fault.offset}`, fault.expected, fault.actual);
  try {
    return JSON.parse(text) as JsonValue;
  } catch (error) {
    throw formatError(op, options.source, 'JSON', error instanceof Error ? error.message : String(error), error);
  }
}

function formatError(op: string, source: string, expected: string, actual: string, cause?: unknown): DsError {
  const hint = 'The file is damaged or was not written by a program that knows the format; fetch or write it again.';
  return new DsError({ code: 'FORMAT', op, expected: `${expected} in ${source}`, actual, hint, cause });
}

/** Finds the first duplicate key, excess of depth or unwanted number; null where there is none (valid or not). */
function scan(text: string, maxDepth: number, onlyIntegers: boolean): Fault | null {
  // One entry per open bracket: the keys seen so far, or null for an array.
  const open: (Set<string> | null)[] = [];
  let keyComesNext = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === 0x22 /* " */) {
      const end = endOfString(text, i);
      if (end < 0) return null;
      const keys = open.at(-1);
      if (keys && keyComesNext) {
        const key = unescapeKey(text.slice(i, end + 1));
        if (keys.has(key)) return { offset: i, expected: 'each key once', actual: `${shorten(key)} twice` };
        keys.add(key);
        keyComesNext = false;
      }
      i = end;
    } else if (char === 0x7b /* { */ || char === 0x5b /* [ */) {
      if (open.length >= maxDepth) {
        return { offset: i, expected: `at most ${maxDepth} nested levels`, actual: 'more' };
      }
      open.push(char === 0x7b ? new Set() : null);
      keyComesNext = char === 0x7b;
    } else if (char === 0x7d /* } */ || char === 0x5d /* ] */) {
      open.pop();
    } else if (char === 0x2c /* , */) {
      keyComesNext = Boolean(open.at(-1));
    } else if (onlyIntegers && (char === 0x2d /* - */ || isDigit(char))) {
      const end = endOfNumber(text, i);
      const number = text.slice(i, end);
      if (!/^\d+$/.test(number) || !Number.isSafeInteger(Number(number))) {
        return { offset: i, expected: 'whole numbers from 0 to 2^53 - 1', actual: shorten(number) };
      }
      i = end - 1;
    }
  }
  return null;
}

const isDigit = (char: number): boolean => char >= 0x30 && char <= 0x39;

/** Index of the closing quote of the string that opens at `start`, or -1. */
function endOfString(text: string, start: number): number {
  let end = start;
  for (;;) {
    end = text.indexOf('"', end + 1);
    if (end < 0) return -1;
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === 0x5c) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
}

/** Index after the characters that can belong to a number. */
function endOfNumber(text: string, start: number): number {
  let end = start + 1;
  while (end < text.length && /[\d.eE+-]/.test(text[end]!)) end++;
  return end;
}

function unescapeKey(literal: string): string {
  if (!literal.includes('\\')) return literal.slice(1, -1);
  try {
    return JSON.parse(literal) as string;
  } catch {
    return literal; // an invalid escape: JSON.parse of the whole text refuses it
  }
}

/** Quotes a piece of a hostile file for an error message: escaped and at most 80 characters. */
export function shorten(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
