/** From method and path to what answers. Every path works without `/v1`, too: people leave it out of the base URL. */
import { ApiError } from './api-error';
import type { Call } from './call';

export interface Route {
  readonly method: 'GET' | 'POST';
  /** A last part `{id}` takes the rest of the path. */
  readonly path: string;
  /** Whether it needs a key where the server has keys. */
  readonly guarded: boolean;
  /** Whether it answers while the server shuts down. */
  readonly whileDraining: boolean;
  readonly handle: (call: Call, id: string) => void | Promise<void>;
}

export interface Match {
  readonly route: Route;
  readonly id: string;
}

export class Router {
  readonly routes: readonly Route[];

  constructor(routes: readonly Route[]) {
    this.routes = routes;
  }

  /** @throws ApiError 400, 404, 405 */
  match(method: string, url: string): Match {
    const path = pathOf(url);
    const found = this.routes.flatMap((route) => {
      const id = idIn(route.path, path) ?? idIn(route.path.replace(/^\/v1(?=\/)/, ''), path);
      return id === undefined ? [] : [{ route, id }];
    });
    const asked = method === 'HEAD' ? 'GET' : method;
    const match = found.find(({ route }) => route.method === asked);
    if (match) return match;
    if (found.length === 0) throw new ApiError({ status: 404, message: 'There is no such path.', code: 'not_found' });
    const allow = found.map(({ route }) => route.method).join(', ');
    throw new ApiError({
      status: 405,
      message: `This path takes ${allow}.`,
      code: 'method_not_allowed',
      headers: { allow },
    });
  }
}

function pathOf(url: string): string {
  try {
    const path = decodeURIComponent(url.split(/[?#]/, 1)[0]!);
    return path.length > 1 ? path.replace(/\/$/, '') : path;
  } catch {
    throw ApiError.invalid('The path is not valid UTF-8.', undefined, 'invalid_path');
  }
}

/** What stands in the place of `{id}`; '' for a pattern without; undefined where the path is another. */
function idIn(pattern: string, path: string): string | undefined {
  if (!pattern.endsWith('{id}')) return pattern === path ? '' : undefined;
  const start = pattern.slice(0, -'{id}'.length);
  return path.startsWith(start) && path.length > start.length ? path.slice(start.length) : undefined;
}
