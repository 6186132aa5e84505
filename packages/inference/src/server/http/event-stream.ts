/** Server-sent events: opened by the first of them, kept alive by pings, cut when nobody reads. */
import type { ServerResponse } from 'node:http';
import { destroyWhenStalled } from './stalled';

export interface EventStreamOptions {
  readonly pingMs: number;
  readonly stallMs: number;
  readonly headers: () => Readonly<Record<string, string>>;
}

export class EventStream implements Disposable {
  readonly #response: ServerResponse;
  readonly #options: EventStreamOptions;
  readonly #ping: NodeJS.Timeout;

  constructor(response: ServerResponse, options: EventStreamOptions) {
    this.#response = response;
    this.#options = options;
    this.#ping = setInterval(() => {
      // Who has not read what came before needs no ping.
      if (!response.writableNeedDrain) this.#write(': ping\n\n');
    }, options.pingMs);
  }

  /** Sends a value as JSON. Waits while the client does not read; ends the connection when that takes too long. */
  async send(value: object, event?: string): Promise<void> {
    await this.sendText(JSON.stringify(value), event);
  }

  async sendText(data: string, event?: string): Promise<void> {
    this.#ping.refresh();
    const name = event === undefined ? '' : `event: ${event}\n`;
    if (!this.#write(`${name}data: ${data}\n\n`)) await this.#drained();
  }

  end(): void {
    this[Symbol.dispose]();
    this.#response.end();
    destroyWhenStalled(this.#response, this.#options.stallMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#ping);
  }

  #write(text: string): boolean {
    const response = this.#response;
    if (response.destroyed) return true;
    if (!response.headersSent)
      response.writeHead(200, {
        ...this.#options.headers(),
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache',
        // For nginx, which would collect the events otherwise.
        'x-accel-buffering': 'no',
      });
    return response.write(text);
  }

  #drained(): Promise<void> {
    const response = this.#response;
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(stalled);
        response.off('drain', done);
        response.off('close', done);
        resolve();
      };
      const stalled = setTimeout(() => response.destroy(), this.#options.stallMs);
      response.on('drain', done);
      response.on('close', done);
    });
  }
}
