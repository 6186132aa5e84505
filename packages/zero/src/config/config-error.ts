/** What is wrong with a config: one record per problem, collected, sorted by place and thrown together. */
import { DsError } from '@ds/core-native';
import type { JsonPath, JsonSource, Position } from './json-source';

/**
 * - `file` the file cannot be read; `syntax` it is no JSON; `duplicate` a key stands twice
 * - `unknown-key` neither we nor DeepSpeed know the key; `not-built` DeepSpeed knows it, we do not do it yet
 * - `value` wrong type or out of range; `missing` nothing stands where a value is needed
 * - `conflict` two settings that cannot both hold
 */
export type ProblemKind =
  | 'file'
  | 'syntax'
  | 'duplicate'
  | 'unknown-key'
  | 'not-built'
  | 'value'
  | 'missing'
  | 'conflict';

/** One problem, in parts and as a sentence. */
export interface ConfigProblem {
  readonly kind: ProblemKind;
  /** null for a config that a program built. */
  readonly file: string | null;
  /** 1-based; null where there is no text. */
  readonly line: number | null;
  readonly column: number | null;
  /** JSON path such as `zero_optimization.stage` or `data[2]`; empty for the whole document. */
  readonly path: string;
  readonly expected: string;
  readonly found: string;
  /** The known key or word nearest to a mistyped one. */
  readonly nearest: string | null;
  readonly hint: string;
  /** `file:line:column path: expected …, got …. hint` */
  readonly message: string;
}

/** Every problem of a config, thrown at once. `hint` lists them, one a line. */
export class ConfigError extends DsError {
  readonly problems: readonly ConfigProblem[];

  /** @param problems at least one */
  constructor(problems: readonly ConfigProblem[], cause?: unknown) {
    const files = [...new Set(problems.map((problem) => problem.file ?? 'the config object'))];
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
    super({
      code: 'CONFIG',
      op: 'config',
      expected: 'a config without problems',
      actual: `${count} in ${files.join(' and ')}`,
      hint: `\n${problems.map((problem) => problem.message).join('\n')}`,
      ...(cause === undefined ? {} : { cause }),
    });
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** The parts of a problem that its finder knows. */
export interface ProblemParts {
  readonly kind: ProblemKind;
  readonly expected: string;
  readonly found: string;
  readonly nearest?: string | null;
  readonly hint: string;
  /** Whether the key (default for unknown and unbuilt keys) or the value is pointed at. */
  readonly at?: 'key' | 'value';
}

/** Collects the problems of one document, or of one object inside it. */
export class ProblemList {
  readonly #source: JsonSource;
  readonly #base: JsonPath;
  readonly #problems: ConfigProblem[];
  readonly #paths: JsonPath[];

  constructor(source: JsonSource, base: JsonPath = [], problems: ConfigProblem[] = [], paths: JsonPath[] = []) {
    this.#source = source;
    this.#base = base;
    this.#problems = problems;
    this.#paths = paths;
  }

  get all(): readonly ConfigProblem[] {
    return this.#problems;
  }

  /** Gives a view whose paths start at `path`; its problems are collected here too. */
  inside(...path: JsonPath): ProblemList {
    return new ProblemList(this.#source, [...this.#base, ...path], this.#problems, this.#paths);
  }

  /** Tells whether `path`, something in it or something around it already has a problem, so that checks built on it would only echo. */
  touches(...path: JsonPath): boolean {
    const full = [...this.#base, ...path];
    return this.#paths.some((other) => {
      const shared = Math.min(other.length, full.length);
      return other.slice(0, shared).every((step, i) => step === full[i]);
    });
  }

  /** Counts `path` as faulty without a problem of its own, because a problem elsewhere explains it. */
  excuse(path: JsonPath): void {
    this.#paths.push([...this.#base, ...path]);
  }

  add(path: JsonPath, parts: ProblemParts): void {
    const full = [...this.#base, ...path];
    const atKey =
      parts.at === undefined ? parts.kind === 'unknown-key' || parts.kind === 'not-built' : parts.at === 'key';
    const position = atKey ? this.#source.keyPosition(full) : this.#source.valuePosition(full);
    const problem = describeProblem(this.#source.file, position, full, parts);
    if (this.#problems.some((other) => other.message === problem.message)) return;
    this.#problems.push(problem);
    this.#paths.push(full);
  }

  /** Takes over the problems of another document. */
  adopt(problems: readonly ConfigProblem[]): void {
    this.#problems.push(...problems);
  }

  /** Takes over what made the text itself faulty. */
  addFaults(): void {
    for (const fault of this.#source.faults) {
      this.#problems.push(describeProblem(this.#source.file, fault.position, fault.path, fault));
      this.#paths.push(fault.path);
    }
  }

  /** @throws ConfigError when there is any problem */
  throwIfAny(): void {
    if (this.#problems.length === 0) return;
    const place = (problem: ConfigProblem) => (problem.line ?? 0) * 1e6 + (problem.column ?? 0);
    throw new ConfigError([...this.#problems].sort((a, b) => place(a) - place(b)));
  }
}

/** Puts a problem into words. */
export function describeProblem(
  file: string | null,
  position: Position | null,
  path: JsonPath,
  parts: ProblemParts,
): ConfigProblem {
  const { kind, expected, found, hint, nearest = null } = parts;
  const pathText = formatPath(path);
  const place = `${file ?? 'config'}${position === null ? '' : `:${position.line}:${position.column}`}`;
  const subject = pathText === '' ? place : `${place} ${pathText}`;
  const message = `${subject}: expected ${expected}, got ${found}. ${hint}`;
  const line = position?.line ?? null;
  const column = position?.column ?? null;
  return { kind, file, line, column, path: pathText, expected, found, nearest, hint, message };
}

/** Writes a path as `zero_optimization.stage` or `data[2]`. */
export function formatPath(path: JsonPath): string {
  return path
    .map((step) => {
      if (typeof step === 'number') return `[${step}]`;
      return /^[\w$-]+$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    })
    .join('')
    .replace(/^\./, '');
}

const maxShownCharacters = 60;

/** Shows a value as JSON, shortened. */
export function formatValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  if (typeof value === 'bigint' || typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  const text = toJson(value);
  return text.length > maxShownCharacters ? `${text.slice(0, maxShownCharacters)}…` : text;
}

/** Objects of a program may hold what JSON cannot (cycles, big integers); they are then only named. */
function toJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return 'an object';
  }
}
