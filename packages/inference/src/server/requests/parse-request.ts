/** From JSON to a checked request: what is wrong is named, what is unknown is listed. */
import type { JsonValue } from '@ds/io';
import type { z } from 'zod';
import { ApiError } from '../http/api-error';
import type { Call } from '../http/call';
import { idleFields } from './fields';

/** Unknown fields inside unknown ones can't be; inside a union they come to light one layer after the other. */
const MOST_ROUNDS = 8;

/**
 * Reads and checks the body of a call.
 *
 * @param strict whether an unknown field is an error
 * @throws ApiError
 */
export async function parseRequest<T extends z.ZodObject>(
  call: Call,
  schema: T,
  strict: boolean,
): Promise<z.output<T>> {
  const body = await call.json();
  const ignored = new Set<string>();
  for (let round = 0; ; round++) {
    const result = schema.safeParse(body);
    if (result.success) {
      for (const [name, field] of Object.entries(idleFields))
        if (schema.shape[name] === field && isGiven(body, name)) ignored.add(name);
      call.setIgnored([...ignored]);
      return result.data;
    }
    const { issues } = result.error;
    const fatal = issues.find(({ code }) => strict || code !== 'unrecognized_keys');
    if (fatal || round === MOST_ROUNDS) throw errorOf(fatal ?? issues[0]!);
    for (const issue of issues) if (issue.code === 'unrecognized_keys') drop(body, issue.path, issue.keys, ignored);
  }
}

function isGiven(body: JsonValue, name: string): boolean {
  return Object.hasOwn(body as object, name) && (body as Record<string, unknown>)[name] !== null;
}

/** Takes unknown keys out of the body, and remembers their names without the numbers of list elements. */
function drop(body: unknown, path: readonly PropertyKey[], keys: readonly string[], ignored: Set<string>): void {
  let owner = body as Record<PropertyKey, unknown>;
  for (const step of path) owner = owner[step] as Record<PropertyKey, unknown>;
  for (const key of keys) {
    if (owner[key] !== null) ignored.add(nameOf([...path, key]).replace(/\[\d+\]/g, '[]'));
    delete owner[key];
  }
}

function errorOf(issue: z.core.$ZodIssue): ApiError {
  if (issue.code === 'unrecognized_keys') {
    const name = nameOf([...issue.path, issue.keys[0]!]);
    return ApiError.invalid(`Unknown field: ${shown(name)}.`, shown(name), 'unknown_field');
  }
  const param = shown(nameOf(issue.path));
  const message = param === '' ? issue.message : `${param}: ${issue.message}`;
  return ApiError.invalid(message.slice(0, 500), param || undefined, 'invalid_value');
}

/** `messages[0].content` */
function nameOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (name, step) =>
      typeof step === 'number' ? `${name}[${step}]` : name === '' ? String(step) : `${name}.${String(step)}`,
    '',
  );
}

function shown(name: string): string {
  return name.length <= 200 ? name : `${name.slice(0, 200)}...`;
}
