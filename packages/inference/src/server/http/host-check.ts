/** Keeps web pages of others away from a server on this machine (DNS rebinding): only its own names may be asked for. */
import { isIP } from 'node:net';
import { ApiError } from './api-error';

const ownNames = ['localhost', '127.0.0.1', '[::1]'];

/** Whether an address to listen on can be reached from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

export class HostCheck {
  /** Undefined: any name is fine. */
  readonly #names: ReadonlySet<string> | undefined;

  /** @param listensOn the address that the server listens on @param allowed further names */
  constructor(listensOn: string, allowed: readonly string[]) {
    const names = [...ownNames, listensOn, ...allowed].map((name) => name.toLowerCase());
    this.#names = isLoopback(listensOn) || allowed.length > 0 ? new Set(names) : undefined;
  }

  /** @throws ApiError 403 */
  check(host: string | undefined): void {
    const name = (host ?? '').toLowerCase().replace(/:\d+$/, '');
    if (!this.#names || this.#names.has(name)) return;
    throw new ApiError({
      status: 403,
      message: 'This server does not answer to that Host. Start it with --allowed-host to add a name.',
      code: 'host_not_allowed',
    });
  }
}
