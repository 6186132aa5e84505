/** Errors as clients expect them: a status, `{"error": {message, type, param, code}}`, and headers that say whether to try again. */
import { DsError } from '@ds/core-native';

export interface ApiErrorFields {
  readonly status: number;
  readonly message: string;
  readonly code?: string | undefined;
  /** The field of the request that is wrong. */
  readonly param?: string | undefined;
  /** Seconds after which to try again; undefined: the same request would fail again. */
  readonly retryAfter?: number | undefined;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

export class ApiError extends Error {
  readonly status: number;
  readonly code: string | undefined;
  readonly param: string | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor({ status, message, code, param, retryAfter, headers = {} }: ApiErrorFields) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.param = param;
    // Clients repeat 408, 409, 429 and 5xx by themselves; what will fail again must say so.
    const retry =
      retryAfter === undefined
        ? { 'x-should-retry': 'false' }
        : { 'x-should-retry': 'true', 'retry-after': String(retryAfter) };
    this.headers = { ...retry, ...headers };
  }

  /** A request that can't be honoured as it is. */
  static invalid(message: string, param?: string, code?: string): ApiError {
    return new ApiError({ status: 400, message, param, code });
  }

  /** A field that is understood, but not built. */
  static notBuilt(what: string, param: string): ApiError {
    return new ApiError({ status: 400, message: `${what}: not built yet`, param, code: 'unsupported_value' });
  }

  get body(): ErrorBody {
    const { message, param = null, code = null } = this;
    return { error: { message, type: typeOf(this.status), param, code } };
  }
}

function typeOf(status: number): string {
  if (status >= 500) return 'server_error';
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  return status === 429 ? 'rate_limit_error' : 'invalid_request_error';
}

/**
 * Puts any error into words for a client. What is no fault of the request is told by the request's id alone: messages from
 * inside may hold paths, or texts of others.
 */
export function apiErrorOf(error: unknown, requestId: string): ApiError {
  if (error instanceof ApiError) return error;
  const code: string = DsError.is(error) ? error.code : '';
  const { op = '', expected = '', actual = '' } = DsError.is(error) ? error : {};
  if (code === 'CONFIG' && op === 'submit')
    return ApiError.invalid(`expected ${expected}, got ${actual}`, undefined, 'invalid_value');
  if (code === 'OVERLOADED')
    return new ApiError({ status: 429, message: 'too many requests are waiting', code: 'queue_full', retryAfter: 1 });
  if (code === 'TIMEOUT') return deadlineError();
  const message = `something went wrong inside; the log names request ${requestId}`;
  return new ApiError({ status: 500, message, code: code === 'OOM' ? 'out_of_memory' : 'internal_error' });
}

export function deadlineError(): ApiError {
  return new ApiError({ status: 504, message: 'the request took longer than is allowed', code: 'request_timeout' });
}

export function shutdownError(): ApiError {
  return new ApiError({ status: 503, message: 'the server is shutting down', code: 'shutting_down', retryAfter: 5 });
}
