/** Runs a schema over a raw config, turns every complaint into a problem, and gives back what is left when the faulty parts are taken out. */
import type * as z from 'zod/mini';
import { formatValue, type ProblemList } from './config-error';
import { type KeyRule, keyRules } from './deepspeed-keys';
import { isRecord, type JsonPath } from './json-source';
import { nearestName } from './nearest-name';

/** The names a person may have meant. */
export interface Vocabulary {
  /** What the keys are keys of: "the config". */
  readonly of: string;
  /** The keys that are built, by the dotted path of the object they stand in. */
  readonly keys: Readonly<Record<string, readonly string[]>>;
  /** Dotted paths of keys that are known and take no decision here. */
  readonly refused: readonly string[];
}

/** Copies objects and lists, so that parts can be taken out of the copy. A key that holds undefined counts as absent. */
export function copyPlain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyPlain);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, copyPlain(item)]));
}

/**
 * Takes the keys out of `raw` that decide nothing here, noting those whose value would.
 *
 * @param raw changed in place
 */
export function applyKeyRules(raw: unknown, problems: ProblemList): void {
  for (const rule of keyRules.values()) {
    const path = rule.path.split('.');
    const parent = path.slice(0, -1).reduce<unknown>((at, key) => (isRecord(at) ? at[key] : undefined), raw);
    const key = path.at(-1)!;
    if (!isRecord(parent) || !Object.hasOwn(parent, key)) continue;
    if (!rule.accepts(parent[key])) problems.add(path, explainRule(rule, parent[key]));
    delete parent[key];
  }
}

function explainRule(rule: KeyRule, value: unknown) {
  const { kind, expected, advice } = rule;
  const hint = kind === 'not-built' ? `DeepSpeed key, not built yet. ${advice}` : advice;
  const problemKind = kind === 'not-built' ? 'not-built' : 'value';
  return { kind: problemKind, expected, found: formatValue(value), hint, at: 'key' } as const;
}

/** Rounds are few: each takes out every part the schema named, and what is inside a part goes with it. */
const maxRounds = 4;

/** A list of a million wrong numbers is one mistake. */
const maxIssuesShown = 100;

/**
 * Checks `raw` against a schema whose every key is optional.
 *
 * @param raw changed in place: faulty parts are taken out, so that the rest can be checked further
 * @returns the checked rest
 */
export function checkSchema<T extends z.ZodMiniType>(
  schema: T,
  raw: unknown,
  known: Vocabulary,
  problems: ProblemList,
): z.output<T> {
  for (let round = 0; round < maxRounds; round++) {
    const result = schema.safeParse(raw);
    if (result.success) return result.data;
    for (const issue of result.error.issues.slice(0, maxIssuesShown)) {
      const path = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step));
      if (issue.code === 'unrecognized_keys') {
        for (const key of issue.keys) {
          const explained = explainUnknownKey(path, key, known);
          problems.add([...path, key], explained);
          // What was meant is then not missing as well.
          if (explained.nearest !== null) problems.excuse([...path, ...explained.nearest.split('.')]);
          removeAt(raw, [...path, key]);
        }
        continue;
      }
      const found = valueAt(raw, path);
      problems.add(path, {
        kind: 'value',
        expected: issue.message,
        found: formatValue(found),
        hint: explainValue(issue.message, found),
      });
      if (path.length === 0) return schema.parse({}) as z.output<T>;
    }
    // Only now: taking a part out moves what the remaining issues point at.
    for (const issue of result.error.issues) removeAt(raw, issue.path as JsonPath);
  }
  return schema.parse({}) as z.output<T>;
}

function valueAt(root: unknown, path: JsonPath): unknown {
  return path.reduce<unknown>((at, step) => (at as Record<string, unknown> | undefined)?.[step], root);
}

/** Takes out the deepest named key of `path`: one bad entry spoils its whole list. */
function removeAt(root: unknown, path: JsonPath): void {
  let length = path.length;
  while (length > 0 && typeof path[length - 1] === 'number') length--;
  if (length === 0) return;
  const parent = valueAt(root, path.slice(0, length - 1));
  if (isRecord(parent)) delete parent[path[length - 1] as string];
}

/** Other people's names of the types. */
const typeAliases: Readonly<Record<string, string>> = { bfloat16: 'bf16', float32: 'fp32', float: 'fp32' };

/** Adds what a wrong value often means. */
function explainValue(expected: string, found: unknown): string {
  if (found === 'auto') {
    return '"auto" is taken only where the plan can decide; in Hugging Face\'s files it means "as on my command line". Write the value.';
  }
  if ((found === 0 || found === 1) && expected === 'true or false') return `Write ${found === 1}.`;
  const words = [...expected.matchAll(/"([^"]+)"/g)].map((match) => match[1]!);
  const bare = expected.replace(/"[^"]*"/g, '');
  if (typeof found !== 'string' || bare.includes('object')) return correctIt;
  const number = found.trim() === '' ? Number.NaN : Number(found);
  const takesNumber = /number|integer/.test(bare) || new RegExp(`\\b${number}\\b`).test(bare);
  if (Number.isFinite(number) && takesNumber) return `Write it without quotes: ${number}.`;
  if (/^(true|false)$/i.test(found) && bare.includes('true')) return `Write it without quotes: ${found.toLowerCase()}.`;
  if (/^(fp16|float16|half)$/i.test(found) && words.includes('bf16')) return 'fp16 is not built yet.';
  const alias = typeAliases[found.toLowerCase()];
  const nearest = alias !== undefined && words.includes(alias) ? alias : nearestName(found, words);
  return nearest === null ? correctIt : `Did you mean "${nearest}"?`;
}

const correctIt = 'Correct the value or remove the key.';

/** Explains a key that nobody knows: the nearest key beside it, the place where a key of that name belongs, and what may stand here. */
function explainUnknownKey(parent: JsonPath, key: string, known: Vocabulary) {
  const here = parent.join('.');
  const allowed = known.keys[here] ?? [];
  const refused = known.refused
    .filter((path) => parentOf(path) === here)
    .map((path) => path.slice(path.lastIndexOf('.') + 1));
  const elsewhere = placesOf(key, known).filter((path) => path !== here);
  const sibling = nearestName(key, [...allowed, ...refused]);
  const nearest = elsewhere[0] ?? sibling;
  const unbuilt = nearest !== null && nearest === sibling && refused.includes(nearest);
  const hints = [
    nearest === null ? '' : `Did you mean "${nearest}"${unbuilt ? ' (a DeepSpeed key, not built yet)' : ''}?`,
    allowed.length === 0 ? '' : `Allowed: ${allowed.filter((name) => name !== '$schema').join(', ')}.`,
  ];
  const container = `a key of ${here === '' ? known.of : here}`;
  return {
    kind: 'unknown-key',
    expected: container,
    found: `the unknown key ${JSON.stringify(key)}`,
    nearest,
    hint: hints.filter((hint) => hint !== '').join(' ') || 'Remove it.',
  } as const;
}

/** Gives the dotted paths at which a built key of exactly this name stands. */
function placesOf(key: string, known: Vocabulary): string[] {
  return Object.entries(known.keys)
    .filter(([, keys]) => keys.includes(key))
    .map(([path]) => (path === '' ? key : `${path}.${key}`));
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('.')));
}
