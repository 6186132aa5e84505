/** The table of all paths. What is not `guarded` answers without a key. */
import { completeChat } from './endpoints/chat-completions';
import { complete } from './endpoints/completions';
import { detokenize, embed, listModels, showModel, tokenize } from './endpoints/models';
import { respond } from './endpoints/responses';
import { shutdownError } from './http/api-error';
import type { Call } from './http/call';
import type { Route } from './http/router';
import type { Service } from './service';

type Handle = (service: Service, call: Call, id: string) => void | Promise<void>;

/** @param draining whether the server shuts down */
export function routesOf(service: Service, draining: () => boolean): readonly Route[] {
  const guarded = (method: Route['method'], path: string, handle: Handle, whileDraining = false): Route => ({
    method,
    path,
    guarded: true,
    whileDraining,
    handle: (call, id) => handle(service, call, id),
  });
  return [
    guarded('POST', '/v1/chat/completions', completeChat),
    guarded('POST', '/v1/completions', complete),
    guarded('POST', '/v1/responses', respond),
    guarded('POST', '/v1/embeddings', embed),
    guarded('GET', '/v1/models', listModels),
    guarded('GET', '/v1/models/{id}', showModel),
    guarded('POST', '/v1/tokenize', tokenize),
    guarded('POST', '/v1/detokenize', detokenize),
    // Whether the process lives; nothing else is said without a key.
    {
      method: 'GET',
      path: '/health',
      guarded: false,
      whileDraining: true,
      handle: (call) => call.send(200, { status: 'ok' }),
    },
    guarded('GET', '/ready', (_, call) => ready(call, draining()), true),
    guarded('GET', '/metrics', showMetrics, true),
  ];
}

function ready(call: Call, draining: boolean): void {
  if (draining) throw shutdownError();
  call.send(200, { status: 'ready' });
}

function showMetrics({ metrics }: Service, call: Call): void {
  call.sendText(200, metrics.text(), 'text/plain; version=0.0.4; charset=utf-8');
}
