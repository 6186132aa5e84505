/** The HTTP side: limits of connections, who may come in, one answer to every request, and an orderly end. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { DsError } from '@ds/core-native';
import type { ServerLimits } from '../limits';
import { ApiError, shutdownError } from './api-error';
import type { ApiKeys } from './api-keys';
import { Call } from './call';
import type { HostCheck } from './host-check';
import type { Route, Router } from './router';

/** One answer that was given. */
export interface Served {
  readonly requestId: string;
  /** The route's path, or '' for none; never the client's. */
  readonly path: string;
  readonly status: number;
  readonly seconds: number;
  /** What went wrong inside, for the log. */
  readonly fault: unknown;
}

export interface HttpServerOptions {
  readonly limits: ServerLimits;
  readonly keys: ApiKeys;
  readonly hosts: HostCheck;
  readonly onServed: (served: Served) => void;
}

/** How often deadlines of connections are looked at, at most. */
const MOST_CHECK_MS = 1_000;
/** A refused body is let run out for so long: a connection cut under it would take the answer along. */
const LINGER_MS = 1_000;

export class HttpServer {
  readonly router: Router;
  readonly #options: HttpServerOptions;
  readonly #server: Server;
  readonly #calls = new Set<Call>();
  #draining = false;
  #onLastCall: (() => void) | undefined;

  constructor(router: Router, options: HttpServerOptions) {
    this.router = router;
    this.#options = options;
    const { headersMs, receiveMs, idleMs, headerBytes, connections } = options.limits;
    this.#server = createServer({
      headersTimeout: headersMs,
      requestTimeout: Math.max(receiveMs, headersMs),
      keepAliveTimeout: idleMs,
      connectionsCheckingInterval: Math.min(MOST_CHECK_MS, headersMs, receiveMs),
      maxHeaderSize: headerBytes,
      // Node would refuse with an empty body.
      requireHostHeader: false,
      // Nothing small waits for more.
      noDelay: true,
    });
    this.#server.maxConnections = connections;
    // All are kept, so that too many are seen and refused instead of dropped in silence.
    this.#server.maxHeadersCount = 0;
    this.#server.on('request', (request, response) => void this.#serve(request, response, false));
    this.#server.on('checkContinue', (request, response) => void this.#serve(request, response, true));
    // Node would refuse what it does not know with an empty body; such a field may be left out of account.
    this.#server.on('checkExpectation', (request, response) => void this.#serve(request, response, false));
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      // An answer that is on its way must not be mixed with another.
      if ([...this.#calls].some(({ request, response }) => request.socket === socket && response.headersSent))
        socket.destroy();
      else refuse(error, socket as Socket);
    });
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** @throws DsError IO where the address can't be had */
  listen(host: string, port: number): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => reject(listenError(host, port, error));
      this.#server.once('error', failed);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', failed);
        resolve(this.#server.address() as AddressInfo);
      });
    });
  }

  /** Takes nothing new, lets what runs go on for `graceMs`, ends the rest with an error, and closes. */
  async close(graceMs: number): Promise<void> {
    this.#draining = true;
    // Calls stay welcome until then: /ready must say that the server goes, and a refusal is better than no connection.
    const late = setTimeout(() => this.endCalls(), graceMs);
    if (this.#calls.size > 0)
      await new Promise<void>((resolve) => {
        this.#onLastCall = resolve;
      });
    clearTimeout(late);
    const closed = new Promise<void>((done) => this.#server.close(() => done()));
    this.#server.closeAllConnections();
    await closed;
  }

  /** Ends what runs with an error. */
  endCalls(): void {
    for (const call of this.#calls) call.abort('shutdown');
  }

  async #serve(request: IncomingMessage, response: ServerResponse, waitsForContinue: boolean): Promise<void> {
    const startMs = performance.now();
    const call = new Call(request, response, this.#options.limits, waitsForContinue);
    this.#calls.add(call);
    response.on('close', () => {
      this.#calls.delete(call);
      if (this.#calls.size === 0) this.#onLastCall?.();
    });
    // The client may be gone in the middle of anything; its call's signal says so.
    request.on('error', () => {});
    response.on('error', () => {});
    let route: Route | undefined;
    let told: ApiError | undefined;
    let fault: unknown;
    try {
      const match = this.#admit(call);
      route = match.route;
      await route.handle(call, match.id);
    } catch (error) {
      told = await call.fail(error);
      if (!(error instanceof ApiError) && (told?.status ?? 0) >= 500) fault = error;
      if (!request.complete) linger(request);
    }
    const status = told?.status ?? (response.headersSent ? response.statusCode : 499);
    const seconds = (performance.now() - startMs) / 1000;
    this.#options.onServed({ requestId: call.id, path: route?.path ?? '', status, seconds, fault });
  }

  /** Everything that is checked before a byte of the body is read. */
  #admit(call: Call) {
    const { method = '', url = '', headers, rawHeaders, httpVersion } = call.request;
    const { limits, hosts, keys } = this.#options;
    if (rawHeaders.length / 2 > limits.headerFields)
      throw new ApiError({
        status: 431,
        message: `More than ${limits.headerFields} header fields.`,
        code: 'headers_too_large',
      });
    if (headers.host === undefined && httpVersion !== '1.0')
      throw ApiError.invalid('The Host header is missing.', undefined, 'invalid_http');
    hosts.check(headers.host);
    let match: ReturnType<Router['match']> | ApiError;
    try {
      match = this.router.match(method, url);
    } catch (error) {
      match = error as ApiError;
    }
    // Who has no key is not told which paths there are.
    if (match instanceof ApiError || match.route.guarded) call.owner = keys.check(headers.authorization);
    if (match instanceof ApiError) throw match;
    if (this.#draining && !match.route.whileDraining) throw shutdownError();
    return match;
  }
}

function linger(request: IncomingMessage): void {
  // A request that has ended has no socket any more.
  const { socket } = request;
  request.resume();
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

/** Answers what is no request at all. */
function refuse(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const refusals: Record<string, [number, string, string]> = {
    HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large', 'headers_too_large'],
    ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout', 'request_timeout'],
  };
  const [status, title, code] = refusals[error.code ?? ''] ?? [400, 'Bad Request', 'invalid_http'];
  const body = JSON.stringify(new ApiError({ status, message: `${title}.`, code }).body);
  const fields = [`content-type: application/json`, `content-length: ${Buffer.byteLength(body)}`, 'connection: close'];
  socket.end(`HTTP/1.1 ${status} ${title}\r\n${fields.join('\r\n')}\r\nx-should-retry: false\r\n\r\n${body}`);
}

function listenError(host: string, port: number, error: NodeJS.ErrnoException): DsError {
  const reasons: Record<string, [string, string]> = {
    EADDRINUSE: ['a port that another program has', 'choose another port, or end that program'],
    EACCES: ['a port that needs more rights', 'choose a port above 1023'],
    EADDRNOTAVAIL: [
      'an address that this machine does not have',
      'listen on 127.0.0.1, or on an address of this machine',
    ],
    ENOTFOUND: ['a name without an address', 'listen on 127.0.0.1, or on an address of this machine'],
  };
  const [actual, hint] = reasons[error.code ?? ''] ?? [error.code ?? error.message, ''];
  return new DsError({ code: 'IO', op: 'serve', expected: `to listen on ${host}:${port}`, actual, hint, cause: error });
}
