/** A JSON document that remembers where each of its keys and values stands, so that every complaint can name line and column. */
import { type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser';

/** Keys and indices from the document's root to a value. */
export type JsonPath = readonly (string | number)[];

/** 1-based. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** What stops a text from being a document, or makes it ambiguous. */
export interface SourceFault {
  readonly kind: 'syntax' | 'duplicate';
  readonly path: JsonPath;
  readonly position: Position;
  readonly expected: string;
  readonly found: string;
  readonly hint: string;
}

/** A parsed document. Without text (an object given by a program) there are no positions. */
export interface JsonSource {
  /** Name to show in front of a position; null for an object given by a program. */
  readonly file: string | null;
  readonly value: unknown;
  readonly faults: readonly SourceFault[];
  /** Finds the value at `path`, or for a missing one its nearest parent. */
  valuePosition(path: JsonPath): Position | null;
  /** Finds the key that holds the value at `path`. */
  keyPosition(path: JsonPath): Position | null;
}

/** Tells a JSON object from lists, null and scalars. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Wraps an object that a program built. */
export function objectSource(value: unknown): JsonSource {
  return { file: null, value, faults: [], valuePosition: () => null, keyPosition: () => null };
}

/**
 * Parses JSON with comments and trailing commas, which DeepSpeed's reader also takes. After a syntax error only the first fault is kept: what follows
 * is mostly its echo.
 */
export function textSource(text: string, file: string): JsonSource {
  const body = text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
  const positionAt = linePositions(body);
  const errors: ParseError[] = [];
  const root = parseTree(body, errors, { allowTrailingComma: true, disallowComments: false, allowEmptyContent: false });
  const faults: SourceFault[] = [];
  const first = errors[0];
  if (first !== undefined || root === undefined) {
    const error = first ?? { error: 4, offset: 0, length: 0 };
    faults.push(syntaxFault(body, error, positionAt(error.offset)));
    return { file, value: undefined, faults, valuePosition: () => null, keyPosition: () => null };
  }
  const value = toValue(root, [], faults, positionAt);
  return {
    file,
    value,
    faults,
    valuePosition: (path) => positionAt(findNode(root, path).value.offset),
    keyPosition: (path) => {
      const found = findNode(root, path);
      return positionAt((found.key ?? found.value).offset);
    },
  };
}

/** Gives a function from an offset to its line and column. */
function linePositions(text: string): (offset: number) => Position {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return (offset) => {
    let line = starts.length;
    while (starts[line - 1]! > offset) line--;
    return { line, column: offset - starts[line - 1]! + 1 };
  };
}

/** Follows `path` as far as it goes; the key belongs to the deepest value reached. */
function findNode(root: Node, path: JsonPath): { value: Node; key: Node | null } {
  let value = root;
  let key: Node | null = null;
  for (const step of path) {
    const children = value.children ?? [];
    if (value.type === 'array') {
      const item = children[Number(step)];
      if (item === undefined) return { value, key };
      value = item;
      key = null;
      continue;
    }
    // The last one of equal keys counts, as in every JSON reader.
    const property = children.findLast((child) => child.children?.[0]?.value === step);
    const child = property?.children?.[1];
    if (value.type !== 'object' || child === undefined) return { value, key };
    key = property!.children![0]!;
    value = child;
  }
  return { value, key };
}

/** Builds the plain value of a node, noting keys that stand twice. */
function toValue(node: Node, path: JsonPath, faults: SourceFault[], positionAt: (offset: number) => Position): unknown {
  if (node.type === 'array') {
    return (node.children ?? []).map((child, i) => toValue(child, [...path, i], faults, positionAt));
  }
  if (node.type !== 'object') return node.value;
  const value: Record<string, unknown> = {};
  const firstLine = new Map<string, number>();
  for (const property of node.children ?? []) {
    const [keyNode, valueNode] = property.children ?? [];
    if (keyNode === undefined || valueNode === undefined) continue;
    const key = String(keyNode.value);
    const position = positionAt(keyNode.offset);
    const seen = firstLine.get(key);
    if (seen !== undefined) {
      faults.push({
        kind: 'duplicate',
        path: [...path, key],
        position,
        expected: 'each key once',
        found: `a second "${key}" (the first is on line ${seen})`,
        hint: 'Keep one of the two.',
      });
    }
    firstLine.set(key, position.line);
    // defineProperty, so that a key named __proto__ stays a key.
    Object.defineProperty(value, key, {
      value: toValue(valueNode, [...path, key], faults, positionAt),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return value;
}

/** What the parser missed, by the name of its error. */
const syntaxExpectations: Readonly<Record<string, string>> = {
  InvalidSymbol: 'a JSON value',
  InvalidNumberFormat: 'a number',
  PropertyNameExpected: 'a key in double quotes',
  ValueExpected: 'a value',
  ColonExpected: 'a ":" after the key',
  CommaExpected: 'a "," between two entries',
  CloseBraceExpected: 'a "}" that closes the object',
  CloseBracketExpected: 'a "]" that closes the list',
  EndOfFileExpected: 'nothing after the closing brace',
  UnexpectedEndOfComment: 'a comment that ends with */',
  UnexpectedEndOfString: 'a string that ends with a double quote on its line',
  UnexpectedEndOfNumber: 'a digit to finish the number',
  InvalidUnicode: 'four hexadecimal digits after \\u',
  InvalidEscapeCharacter: 'one of \\" \\\\ \\/ \\b \\f \\n \\r \\t \\u after a backslash',
  InvalidCharacter: 'no control character inside a string',
};

function syntaxFault(text: string, error: ParseError, position: Position): SourceFault {
  const rest = text.slice(error.offset);
  const token = /^[^\s,:{}[\]]+|^[,:{}[\]]/.exec(rest)?.[0] ?? '';
  const expected = syntaxExpectations[printParseErrorCode(error.error)] ?? 'valid JSON';
  const found = token === '' ? 'the end of the file' : token.length > 40 ? `${token.slice(0, 40)}…` : token;
  return { kind: 'syntax', path: [], position, expected, found, hint: syntaxHint(text, token) };
}

function syntaxHint(text: string, token: string): string {
  if (text.trim() === '')
    return 'The file is empty; the smallest config is {"optimizer": {"type": "AdamW"}, "train_batch_size": 8}.';
  if (/^(True|False|None)$/.test(token)) return `JSON writes ${{ True: 'true', False: 'false', None: 'null' }[token]}.`;
  if (/^[-+]?(nan|inf|infinity)$/i.test(token)) return 'JSON has no NaN and no infinity; write a number.';
  if (token.startsWith("'")) return 'JSON takes double quotes only.';
  if (/^[.+]\d/.test(token)) return 'JSON numbers start with a digit or a minus sign: 0.1, not .1.';
  return 'Comments and trailing commas are allowed; everything else is plain JSON.';
}
