/** One request and its answer. Its signal is aborted when the client goes, time is up, or the server shuts down. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { JsonValue } from '@ds/io';
import type { ServerLimits } from '../limits';
import { ApiError, apiErrorOf, deadlineError, type ErrorBody, shutdownError } from './api-error';
import { EventStream } from './event-stream';
import { parseBody, readBody } from './json-body';
import { destroyWhenStalled } from './stalled';

export type EndReason = 'client' | 'deadline' | 'shutdown';

/** The header is a list for people; clients drop a response whose headers are too large. */
const MOST_LISTED_CHARS = 1_024;

export class Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly id = `req_${randomUUID().replaceAll('-', '')}`;
  readonly limits: ServerLimits;
  /** Whose request it is, so that nobody sees what another has stored: a digest of the key, or ''. */
  owner = '';
  /** How an error is told behind events that were sent; an API may have a form of its own. */
  errorEvent: (body: ErrorBody) => { readonly event?: string; readonly value: object } = (value) => ({ value });
  readonly #abort = new AbortController();
  readonly #deadline: NodeJS.Timeout;
  readonly #waitsForContinue: boolean;
  #endReason: EndReason | undefined;
  #ignored: readonly string[] = [];
  #events: EventStream | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, limits: ServerLimits, waitsForContinue: boolean) {
    this.request = request;
    this.response = response;
    this.limits = limits;
    this.#waitsForContinue = waitsForContinue;
    this.#deadline = setTimeout(() => this.abort('deadline'), limits.requestMs);
    response.on('close', () => {
      clearTimeout(this.#deadline);
      this.#events?.[Symbol.dispose]();
      if (!response.writableFinished) this.abort('client');
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Ends the work for this call. The first reason counts. */
  abort(reason: EndReason): void {
    this.#endReason ??= reason;
    this.#abort.abort();
  }

  /** Names fields of the request that had no effect, in a header of the answer. */
  setIgnored(fields: readonly string[]): void {
    this.#ignored = fields;
  }

  /** Reads the body as JSON. @throws ApiError 400, 413, 415 */
  async json(): Promise<JsonValue> {
    const type = this.request.headers['content-type'] ?? '';
    // A web page can send other types to any server without being asked first.
    if (!/^application\/json\s*(;|$)/i.test(type))
      throw new ApiError({
        status: 415,
        message: 'The content-type must be application/json.',
        code: 'unsupported_media_type',
      });
    if (this.#waitsForContinue && Number(this.request.headers['content-length'] ?? 0) <= this.limits.bodyBytes)
      this.response.writeContinue();
    return parseBody(await readBody(this.request, this.limits.bodyBytes), this.limits.jsonDepth);
  }

  send(status: number, body: object, headers: Readonly<Record<string, string>> = {}): void {
    this.sendText(status, JSON.stringify(body), 'application/json', headers);
  }

  sendText(status: number, text: string, type: string, headers: Readonly<Record<string, string>> = {}): void {
    if (this.response.destroyed || this.response.headersSent) return;
    const body = Buffer.from(text);
    this.response.writeHead(status, {
      ...this.#headers(),
      ...headers,
      'content-type': type,
      'content-length': String(body.length),
    });
    this.response.end(this.request.method === 'HEAD' ? undefined : body);
    destroyWhenStalled(this.response, this.limits.writeStallMs);
  }

  /** Answers with events from now on; an error before the first of them is still an ordinary answer. */
  events(): EventStream {
    this.#events ??= new EventStream(this.response, {
      pingMs: this.limits.pingMs,
      stallMs: this.limits.writeStallMs,
      headers: () => this.#headers(),
    });
    return this.#events;
  }

  /** Tells the client of an error, behind what was sent already if need be. Gives what was told; undefined: nobody is there. */
  async fail(error: unknown): Promise<ApiError | undefined> {
    const told = this.#errorOf(error);
    if (this.response.destroyed || this.response.writableEnded) return undefined;
    if (!this.response.headersSent) {
      this.#events?.[Symbol.dispose]();
      // What the client is still sending will not be read.
      const close = this.request.complete ? {} : { connection: 'close' };
      this.send(told.status, told.body, { ...told.headers, ...close });
    } else {
      const { value, event } = this.errorEvent(told.body);
      await this.#events?.send(value, event);
      this.#events?.end();
    }
    return told;
  }

  #errorOf(error: unknown): ApiError {
    if (this.#endReason === 'deadline') return deadlineError();
    return this.#endReason === 'shutdown' ? shutdownError() : apiErrorOf(error, this.id);
  }

  #headers(): Record<string, string> {
    const ignored = listed(this.#ignored);
    return {
      'x-request-id': this.id,
      'x-content-type-options': 'nosniff',
      ...(ignored === '' ? {} : { 'x-ds-ignored-fields': ignored }),
    };
  }
}

/** Names come from the request: only what is harmless in a header stays as it is. */
function listed(fields: readonly string[]): string {
  const names = fields.map((name) => encodeURIComponent(name).replaceAll('%5B%5D', '[]').slice(0, 128));
  const text = names.join(', ');
  return text.length <= MOST_LISTED_CHARS ? text : `${text.slice(0, MOST_LISTED_CHARS)}...`;
}
