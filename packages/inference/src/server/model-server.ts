/** Serves one model over HTTP, as OpenAI's clients expect it. */
import { DsError } from '@ds/core-native';
import { ApiKeys } from './http/api-keys';
import { HostCheck, isLoopback } from './http/host-check';
import { HttpServer, type Served } from './http/http-server';
import { Router } from './http/router';
import { defaultLimits, type ServerLimits } from './limits';
import { routesOf } from './routes';
import type { ServedModel } from './served-model';
import { Service } from './service';

export interface ServerOptions {
  /** Address to listen on. Default 127.0.0.1: this machine alone. */
  readonly host?: string;
  /** Default 8080; 0 takes any that is free. */
  readonly port?: number;
  /** Keys that let requests in; default none, which only a loopback address may have. */
  readonly apiKeys?: readonly string[];
  /** Allows an address that others can reach without keys. Default false. */
  readonly insecure?: boolean;
  /** Names besides localhost by which this server may be asked for. */
  readonly allowedHosts?: readonly string[];
  /** Answers unknown fields of a request with 400. Default false: they are named in `x-ds-ignored-fields`. */
  readonly strict?: boolean;
  readonly limits?: Partial<ServerLimits>;
  /** Hears of every request that was answered. Its texts are not part of it. */
  readonly onServed?: (served: Served) => void;
}

const DEFAULT_HOST = '127.0.0.1';
const DEFAULT_PORT = 8080;

export class ModelServer implements AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly #http: HttpServer;
  readonly #service: Service;
  readonly #limits: ServerLimits;
  #closed: Promise<void> | undefined;

  private constructor(http: HttpServer, service: Service, limits: ServerLimits, url: string, port: number) {
    this.#http = http;
    this.#service = service;
    this.#limits = limits;
    this.url = url;
    this.port = port;
  }

  /** @throws DsError CONFIG for an address without protection, IO for one that can't be had */
  static async start(model: ServedModel, options: ServerOptions = {}): Promise<ModelServer> {
    const {
      host = DEFAULT_HOST,
      port = DEFAULT_PORT,
      apiKeys = [],
      insecure = false,
      allowedHosts = [],
      strict = false,
    } = options;
    const limits = { ...defaultLimits, ...options.limits };
    checkAddress(host, port, apiKeys, insecure);
    const service = new Service({ model, limits, strict });
    const router = new Router(routesOf(service, () => http.draining));
    const http: HttpServer = new HttpServer(router, {
      limits,
      keys: new ApiKeys(apiKeys),
      hosts: new HostCheck(host, allowedHosts),
      onServed: (served) => {
        service.metrics.served(served);
        options.onServed?.(served);
      },
    });
    try {
      const { port: listening } = await http.listen(host, port);
      const name = host.includes(':') ? `[${host}]` : host;
      return new ModelServer(http, service, limits, `http://${name}:${listening}`, listening);
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Says whether an address may be listened on, before a model is loaded for it. @throws DsError CONFIG, IO */
  static async check({
    host = DEFAULT_HOST,
    port = DEFAULT_PORT,
    apiKeys = [],
    insecure = false,
  }: ServerOptions): Promise<void> {
    checkAddress(host, port, apiKeys, insecure);
    const probe = new HttpServer(new Router([]), {
      limits: defaultLimits,
      keys: new ApiKeys([]),
      hosts: new HostCheck(host, []),
      onServed: () => {},
    });
    await probe.listen(host, port);
    await probe.close(0);
  }

  /** All paths. */
  get routes() {
    return this.#http.router.routes;
  }

  /** Takes nothing new, lets what runs finish for `limits.drainMs`, ends the rest with an error, and stops. */
  close(graceMs = this.#limits.drainMs): Promise<void> {
    if (this.#closed && graceMs === 0) this.#http.endCalls();
    this.#closed ??= (async () => {
      await this.#http.close(graceMs);
      await this.#service.model.drain();
      await this.#service[Symbol.asyncDispose]();
    })();
    return this.#closed;
  }

  /** Ends what runs with an error, and stops. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close(0);
  }
}

function checkAddress(host: string, port: number, keys: readonly string[], insecure: boolean): void {
  const wrong = (expected: string, actual: string, hint = '') =>
    new DsError({ code: 'CONFIG', op: 'serve', expected, actual, hint });
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw wrong('a port from 0 to 65535', String(port));
  if (keys.some((key) => !/^[!-~]{1,512}$/.test(key)))
    throw wrong('API keys of 1 to 512 printable ASCII characters without spaces', 'another one');
  if (isLoopback(host) || keys.length > 0 || insecure) return;
  throw wrong(
    'an API key for an address that other machines can reach',
    `${host} without`,
    'give --api-key-file, listen on 127.0.0.1, or say --insecure',
  );
}
