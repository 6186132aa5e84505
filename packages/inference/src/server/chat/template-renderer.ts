/**
 * Renders chat templates in a worker. A template comes with a model and may loop for ever or ask for all memory; then the
 * worker ends, and the next one takes its place.
 */
import { Worker } from 'node:worker_threads';
import { ApiError } from '../http/api-error';
import { type RenderJob, type RenderReply, workerProgram } from './template-worker';

const MOST_MEGABYTES = 256;

interface Waiting {
  readonly job: RenderJob;
  readonly resolve: (text: string) => void;
  readonly reject: (error: ApiError) => void;
}

export class TemplateRenderer implements AsyncDisposable {
  readonly #deadlineMs: number;
  readonly #waiting: Waiting[] = [];
  #current: Waiting | undefined;
  #worker: Worker | undefined;
  #ready = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param deadlineMs for one template, from when the worker takes it up */
  constructor(deadlineMs: number) {
    this.#deadlineMs = deadlineMs;
  }

  /** @throws ApiError 400 where the template refuses the conversation, 500 where it takes too long or too much */
  render(job: RenderJob): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject });
      this.#next();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    await this.#worker?.terminate();
  }

  #next(): void {
    if (this.#current || this.#waiting.length === 0) return;
    this.#worker ??= this.#start();
    // Starting takes longer than rendering, and is no fault of the template.
    if (!this.#ready) return;
    this.#current = this.#waiting.shift()!;
    this.#timer = setTimeout(() => {
      void this.#worker?.terminate();
      this.#gone(`took longer than ${this.#deadlineMs} ms`);
    }, this.#deadlineMs);
    this.#worker.postMessage(this.#current.job);
  }

  #start(): Worker {
    const worker = new Worker(workerProgram(), {
      eval: true,
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: MOST_MEGABYTES },
    });
    worker.unref();
    worker.on('message', (reply: RenderReply) => {
      if (worker === this.#worker) this.#take(reply);
    });
    worker.on('error', () => {
      if (worker === this.#worker) this.#gone(`took more than ${MOST_MEGABYTES} MB`);
    });
    return worker;
  }

  #take(reply: RenderReply): void {
    if ('ready' in reply) this.#ready = true;
    else {
      clearTimeout(this.#timer);
      const { resolve, reject } = this.#current!;
      this.#current = undefined;
      if ('text' in reply) resolve(reply.text);
      else reject(refused(reply.error));
    }
    this.#next();
  }

  /** The worker has ended: whoever it was working for gets an error, the others another worker. */
  #gone(why: string): void {
    clearTimeout(this.#timer);
    this.#worker = undefined;
    this.#ready = false;
    const failed = this.#current ?? this.#waiting.shift();
    this.#current = undefined;
    failed?.reject(
      new ApiError({ status: 500, message: `The model's chat template ${why}.`, code: 'chat_template_failed' }),
    );
    this.#next();
  }
}

/** What a template says itself, such as "roles must alternate", is for whoever wrote the messages. */
function refused(reason: string): ApiError {
  const message = `The model's chat template refused the messages: ${reason.slice(0, 300)}`;
  return ApiError.invalid(message, 'messages', 'chat_template_refused');
}
