/** Speaks to a server in a test: by fetch, or byte by byte. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { ModelServer, type ServerOptions } from '../src/server/model-server';
import { ScriptedModel, type ScriptedModelOptions } from './scripted-model';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into all kinds of bodies
  readonly json: any;
}

/** A server with a scripted model, gone at the end of the block. */
export class TestServer implements AsyncDisposable {
  readonly model: ScriptedModel;
  readonly server: ModelServer;
  readonly faults: unknown[];

  private constructor(model: ScriptedModel, server: ModelServer, faults: unknown[]) {
    this.model = model;
    this.server = server;
    this.faults = faults;
  }

  static async start(model: ScriptedModelOptions = {}, options: ServerOptions = {}): Promise<TestServer> {
    const scripted = new ScriptedModel(model);
    const faults: unknown[] = [];
    const onServed: ServerOptions['onServed'] = ({ fault }) => {
      if (fault !== undefined) faults.push(fault);
    };
    return new TestServer(scripted, await ModelServer.start(scripted, { port: 0, onServed, ...options }), faults);
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return answerOf(await fetch(this.server.url + path, { headers }));
  }

  async post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return answerOf(await this.open(path, body, headers));
  }

  /** The response before its body is read. A text is sent as it is. */
  open(path: string, body: unknown, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
    return fetch(this.server.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body),
      ...(signal ? { signal } : {}),
    });
  }

  chat(text: string, more: Record<string, unknown> = {}): Promise<Answer> {
    return this.post('/v1/chat/completions', chatBody(text, more));
  }

  async socket(): Promise<Socket> {
    const socket = connect(this.server.port, '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  }

  /** Sends bytes, and gives all that comes until the server closes. */
  async raw(...parts: (string | Uint8Array)[]): Promise<string> {
    const socket = await this.socket();
    for (const part of parts) socket.write(part);
    return readAll(socket);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

export function chatBody(text: string, more: Record<string, unknown> = {}) {
  return { model: 'scripted', messages: [{ role: 'user', content: text }], ...more };
}

export async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('utf8').on('data', (data: string) => {
    text += data;
  });
  if (!socket.destroyed) await new Promise((done) => socket.on('close', done));
  return text;
}

async function answerOf(response: Response): Promise<Answer> {
  const text = await response.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {}
  return { status: response.status, headers: response.headers, text, json };
}

/** Values of the `data:` lines of server-sent events; [DONE] stays a text. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into all kinds of events
export function eventsOf(text: string): any[] {
  return text
    .split('\n\n')
    .flatMap((block) => block.split('\n').filter((line) => line.startsWith('data: ')))
    .map((line) => (line === 'data: [DONE]' ? '[DONE]' : JSON.parse(line.slice(6))));
}

/** Waits until something holds; fails after a while. */
export async function until(holds: () => boolean, withinMs = 20_000): Promise<void> {
  for (const endMs = Date.now() + withinMs; !holds(); ) {
    if (Date.now() > endMs) throw new Error(`did not come within ${withinMs} ms: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
