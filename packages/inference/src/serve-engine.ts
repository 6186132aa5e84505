/** Serves a loaded engine over HTTP. The server's modules are loaded by the first call: most programs never serve. */
import type { InferenceEngine } from './inference-engine';
import type { ServerOptions } from './server/model-server';

export interface ServeEngineOptions extends ServerOptions {
  /** By which requests name the model; default the name of its folder. */
  readonly modelId?: string;
  /** Tokens whose keys and values are held at once, of all texts together; default 8 contexts, 32,768 at most. */
  readonly cacheTokens?: number;
}

/** A server that runs. Disposing of it ends what runs with an error; the engine stays the caller's. */
export interface RunningServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly modelId: string;
  readonly contextTokens: number;
  /** Whether the model has a template for conversations. */
  readonly chats: boolean;
  /** Takes nothing new, lets what runs finish for `graceMs` (default `limits.drainMs`), ends the rest with an error, and stops. */
  close(graceMs?: number): Promise<void>;
}

/**
 * Starts a server that speaks OpenAI's API: /v1/chat/completions, /v1/completions, /v1/responses, /v1/models.
 *
 * @throws DsError CONFIG for a model without tokenizer or an address without protection; IO for one that can't be had; OOM
 */
export async function serveEngine(engine: InferenceEngine, options: ServeEngineOptions = {}): Promise<RunningServer> {
  const { EngineModel } = require('./server/engine-model') as typeof import('./server/engine-model');
  const { ModelServer } = require('./server/model-server') as typeof import('./server/model-server');
  const { defaultLimits } = require('./server/limits') as typeof import('./server/limits');
  const { modelId, cacheTokens, ...serverOptions } = options;
  const model = new EngineModel(engine, {
    queue: options.limits?.queue ?? defaultLimits.queue,
    ...(modelId === undefined ? {} : { modelId }),
    ...(cacheTokens === undefined ? {} : { cacheTokens }),
  });
  try {
    const server = await ModelServer.start(model, serverOptions);
    const close = async (graceMs?: number): Promise<void> => {
      await server.close(graceMs);
      await model[Symbol.asyncDispose]();
    };
    return {
      url: server.url,
      port: server.port,
      modelId: model.id,
      contextTokens: model.contextTokens,
      chats: model.chatTemplate !== undefined,
      close,
      [Symbol.asyncDispose]: () => close(0),
    };
  } catch (error) {
    await model[Symbol.asyncDispose]();
    throw error;
  }
}

/** Says whether an address may be listened on, without a model. @throws DsError CONFIG, IO */
export async function checkServerAddress(options: ServerOptions): Promise<void> {
  const { ModelServer } = require('./server/model-server') as typeof import('./server/model-server');
  await ModelServer.check(options);
}
