/** The one error class of the project; the native side throws it too. */

export type DsErrorCode =
  | 'SHAPE'
  | 'DTYPE'
  | 'DEVICE'
  | 'OOM'
  | 'COMM'
  | 'COMM_TIMEOUT'
  | 'CONFIG'
  | 'CHECKPOINT'
  | 'FORMAT'
  | 'IO'
  | 'DISPOSED'
  | 'UNSUPPORTED'
  | 'ABORTED'
  /** A deadline of the caller has passed. */
  | 'TIMEOUT'
  /** Nothing is wrong but the moment: try again later. */
  | 'OVERLOADED'
  | 'INTERNAL';

export interface DsErrorFields {
  code: DsErrorCode;
  /** What failed: an op, a command, a file. */
  op: string;
  expected: string;
  actual: string;
  /** What to do about it. */
  hint?: string | undefined;
  cause?: unknown;
}

const marker = Symbol.for('@ds/error');

/** Says what was expected, what was got, and what to do. */
export class DsError extends Error {
  readonly code: DsErrorCode;
  readonly op: string;
  readonly expected: string;
  readonly actual: string;
  readonly hint: string;
  readonly [marker] = true;

  constructor(fields: DsErrorFields) {
    const hint = fields.hint ?? '';
    super(
      `${fields.op}: expected ${fields.expected}, got ${fields.actual}${hint ? `. ${hint}` : ''}`,
      fields.cause === undefined ? undefined : { cause: fields.cause },
    );
    this.name = 'DsError';
    this.code = fields.code;
    this.op = fields.op;
    this.expected = fields.expected;
    this.actual = fields.actual;
    this.hint = hint;
  }

  /** Tells a DsError apart, also one that another copy of this package made. */
  static is(error: unknown): error is DsError {
    return typeof error === 'object' && error !== null && marker in error;
  }
}
