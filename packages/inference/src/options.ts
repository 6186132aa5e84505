/** Checks of options: every one is known, of its type and in its range, or there is an error that says what is allowed. */
import { DsError } from '@ds/core-native';

export interface OptionRule {
  /** For the error: "a whole number >= 1". */
  readonly expected: string;
  readonly allows: (value: unknown) => boolean;
}

export type OptionRules<T> = { readonly [K in keyof Required<T>]: OptionRule };

function isWhole(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value);
}

export const rules = {
  wholeFrom: (least: number): OptionRule => ({
    expected: `a whole number >= ${least}`,
    allows: (v) => isWhole(v) && v >= least,
  }),
  above: (least: number): OptionRule => ({
    expected: `a number > ${least}`,
    allows: (v) => typeof v === 'number' && Number.isFinite(v) && v > least,
  }),
  finite: { expected: 'a finite number', allows: (v: unknown) => Number.isFinite(v) },
  share: { expected: 'a number in (0, 1]', allows: (v: unknown) => typeof v === 'number' && v > 0 && v <= 1 },
  flag: { expected: 'true or false', allows: (v: unknown) => typeof v === 'boolean' },
  callback: { expected: 'a function', allows: (v: unknown) => typeof v === 'function' },
  oneOf: (...values: readonly string[]): OptionRule => ({
    expected: values.map((v) => JSON.stringify(v)).join(' or '),
    allows: (v) => values.includes(v as string),
  }),
  signal: { expected: 'an AbortSignal', allows: (v: unknown) => v instanceof AbortSignal },
  ids: {
    expected: 'a list of token ids',
    allows: (v: unknown) => Array.isArray(v) && v.every((id) => isWhole(id) && id >= 0),
  },
  numberById: {
    expected: 'finite numbers by token id',
    allows: (v: unknown) =>
      typeof v === 'object' &&
      v !== null &&
      Object.entries(v).every(([id, number]) => /^\d+$/.test(id) && Number.isFinite(number)),
  },
  text: { expected: 'a text', allows: (v: unknown) => typeof v === 'string' },
  texts: {
    expected: 'a text or a list of texts, none empty',
    allows: (v: unknown) =>
      [v].flat().every((text) => typeof text === 'string' && text !== '') && [v].flat().length > 0,
  },
} satisfies Record<string, OptionRule | ((...args: never[]) => OptionRule)>;

/** @throws CONFIG naming the option, what is allowed, and for an unknown name the nearest known one */
export function checkOptions<T extends object>(op: string, given: T, known: OptionRules<T>): void {
  const names = Object.keys(known);
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(known, name))
      throw new DsError({
        code: 'CONFIG',
        op,
        expected: `the options ${names.join(', ')}`,
        actual: name,
        hint: `did you mean ${nearest(name, names)}?`,
      });
    const rule = known[name as keyof T];
    if (value === undefined || rule.allows(value)) continue;
    throw new DsError({ code: 'CONFIG', op, expected: `${rule.expected} for ${name}`, actual: shown(value) });
  }
}

function shown(value: unknown): string {
  if (typeof value === 'number') return String(value);
  return typeof value === 'object' || typeof value === 'function' ? typeof value : JSON.stringify(value);
}

/** The known name with the fewest edits (Levenshtein 1966), ignoring case. */
function nearest(name: string, names: readonly string[]): string {
  const distance = (other: string): number => {
    const [a, b] = [name.toLowerCase(), other.toLowerCase()];
    let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
    for (let i = 1; i <= a.length; i++) {
      const row = [i];
      for (let j = 1; j <= b.length; j++)
        row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
      previous = row;
    }
    return previous[b.length]!;
  };
  return [...names].sort((a, b) => distance(a) - distance(b))[0]!;
}
