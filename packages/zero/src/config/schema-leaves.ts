/** The leaves of the config schemas. A leaf's error text is what a reader is told to write, so that every message has the same form. */
import * as z from 'zod/mini';

interface Bounds {
  readonly min?: number;
  readonly max?: number;
  /** Exclusive bounds. */
  readonly above?: number;
  readonly below?: number;
}

function boundsText({ min, max, above, below }: Bounds): string {
  const parts: string[] = [];
  if (min !== undefined) parts.push(`≥ ${min}`);
  if (above !== undefined) parts.push(`> ${above}`);
  if (max !== undefined) parts.push(`≤ ${max}`);
  if (below !== undefined) parts.push(`< ${below}`);
  return parts.length === 0 ? '' : ` ${parts.join(' and ')}`;
}

function boundChecks({ min, max, above, below }: Bounds, error: string) {
  return [
    ...(min === undefined ? [] : [z.gte(min, { error })]),
    ...(max === undefined ? [] : [z.lte(max, { error })]),
    ...(above === undefined ? [] : [z.gt(above, { error })]),
    ...(below === undefined ? [] : [z.lt(below, { error })]),
  ];
}

/** A whole number. JSON's 5e8 is one, as in DeepSpeed's files. */
export function integer(doc: string, bounds: Bounds) {
  const error = `an integer${boundsText(bounds)}`;
  return z.optional(z.int({ error }).check(...boundChecks(bounds, error), z.describe(doc)));
}

export function integerOrNull(doc: string, bounds: Bounds) {
  const error = `an integer${boundsText(bounds)} or null`;
  const inner = z.int({ error }).check(...boundChecks(bounds, error));
  return z.optional(z.nullable(inner).check(z.describe(doc)));
}

/** A whole number, or "auto" where the program can decide. */
export function integerOrAuto(doc: string, bounds: Bounds) {
  const error = `an integer${boundsText(bounds)} or "auto"`;
  const inner = z.int({ error }).check(...boundChecks(bounds, error));
  return z.optional(z.union([inner, z.literal('auto')], { error }).check(z.describe(doc)));
}

/** A list of whole numbers, of at least `length`. */
export function integers(doc: string, bounds: Bounds & { readonly length?: number }) {
  const error = `a list of integers${boundsText(bounds)}`;
  const item = z.int({ error }).check(...boundChecks(bounds, error));
  return z.optional(z.array(item, { error }).check(z.minLength(bounds.length ?? 0, { error }), z.describe(doc)));
}

export function integersOrNull(doc: string, bounds: Bounds) {
  const error = `a list of integers${boundsText(bounds)} or null`;
  const item = z.int({ error }).check(...boundChecks(bounds, error));
  return z.optional(z.nullable(z.array(item, { error })).check(z.describe(doc)));
}

export function number(doc: string, bounds: Bounds) {
  const error = `a number${boundsText(bounds)}`;
  return z.optional(z.number({ error }).check(...boundChecks(bounds, error), z.describe(doc)));
}

export function numberOrAuto(doc: string, bounds: Bounds) {
  const error = `a number${boundsText(bounds)} or "auto"`;
  const inner = z.number({ error }).check(...boundChecks(bounds, error));
  return z.optional(z.union([inner, z.literal('auto')], { error }).check(z.describe(doc)));
}

export function flag(doc: string) {
  return z.optional(z.boolean({ error: 'true or false' }).check(z.describe(doc)));
}

export function text(doc: string, error = 'a string') {
  return z.optional(z.string({ error }).check(z.minLength(1, { error }), z.describe(doc)));
}

/** One of a few words, numbers, booleans or null. */
export function oneOf<const T extends readonly (string | number | boolean | null)[]>(doc: string, choices: T) {
  return z.optional(z.literal([...choices], { error: listChoices(choices) }).check(z.describe(doc)));
}

/** Writes choices as `"a", "b" or null`. */
export function listChoices(choices: readonly unknown[]): string {
  const words = choices.map((choice) => JSON.stringify(choice));
  return words.length === 1 ? words[0]! : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** An object that takes these keys and no others. */
export function section<T extends z.core.$ZodShape>(doc: string, shape: T, example: string) {
  const error: z.core.$ZodErrorMap = (issue) =>
    issue.code === 'unrecognized_keys' ? undefined : `an object such as ${example}`;
  return z.optional(z.strictObject(shape, { error }).check(z.describe(doc)));
}
