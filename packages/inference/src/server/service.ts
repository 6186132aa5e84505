/** What the endpoints share: the model, the limits, and the way from a checked request to tokens. */
import type { z } from 'zod';
import { TemplateRenderer } from './chat/template-renderer';
import { ApiError } from './http/api-error';
import type { Call } from './http/call';
import type { ServerLimits } from './limits';
import { ServerMetrics } from './metrics/server-metrics';
import { parseRequest } from './requests/parse-request';
import { ItemStore } from './responses/item-store';
import type { ServedModel, ServedOptions, ServedToken } from './served-model';

export interface ServiceOptions {
  readonly model: ServedModel;
  readonly limits: ServerLimits;
  /** Whether unknown fields of a request are an error. */
  readonly strict: boolean;
}

export class Service implements AsyncDisposable {
  readonly model: ServedModel;
  readonly limits: ServerLimits;
  readonly renderer: TemplateRenderer;
  readonly metrics: ServerMetrics;
  readonly items = new ItemStore();
  /** When the model began to serve; clients are told as its time of creation. */
  readonly created = Math.floor(Date.now() / 1000);
  readonly #strict: boolean;

  constructor({ model, limits, strict }: ServiceOptions) {
    this.model = model;
    this.limits = limits;
    this.#strict = strict;
    this.renderer = new TemplateRenderer(limits.templateMs);
    this.metrics = new ServerMetrics(model);
  }

  /** @throws ApiError */
  parse<T extends z.ZodObject>(call: Call, schema: T): Promise<z.output<T>> {
    return parseRequest(call, schema, this.#strict);
  }

  /** @throws ApiError 404 for a name that is not the model's */
  checkModel(name: string): void {
    if (name === this.model.id) return;
    throw new ApiError({
      status: 404,
      message: `There is no such model; this server has ${JSON.stringify(this.model.id)}.`,
      param: 'model',
      code: 'model_not_found',
    });
  }

  /** Asks the model for answers. @throws ApiError 429 while too many wait */
  submit(call: Call, promptIds: readonly number[], options: ServedOptions): AsyncIterable<ServedToken> {
    if (this.model.metrics().waiting >= this.limits.queue)
      throw new ApiError({ status: 429, message: 'Too many requests are waiting.', code: 'queue_full', retryAfter: 1 });
    const request = { promptIds, options, signal: call.signal, cacheSalt: call.owner };
    return this.metrics.watched(request, this.model.submit(request));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.renderer[Symbol.asyncDispose]();
  }
}
