/**
 * Serves many requests from one model: a loop of steps, each of which takes every answer in the making one token further.
 *
 * Errors end what they belong to. A step that fails is done again in halves, down to the single texts that fail alone:
 * steps are idempotent, so nobody else notices.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DsError } from '@ds/core-native';
import type { Tokenizer } from '@ds/io';
import type { StepRunner } from '../decoder/step-runner';
import { checkIds, checkOptionIds } from '../generation/check-ids';
import type { FinishReason } from '../generation/sequence';
import { AnswerStream } from './answer-stream';
import type { Drafter } from './drafter';
import { PagePool } from './page-pool';
import { PrefixCache } from './prefix-cache';
import { Request } from './request';
import { type RequestOptions, resolveRequestOptions } from './request-options';
import { type Outcome, Scheduler, type SchedulerLimits } from './scheduler';
import type { ServingMetrics } from './serving-metrics';
import { checkServingOptions, resolveLimits } from './serving-options';
import { type StepEntry, stepBatch } from './step-plan';

export interface ServingOptions {
  /** The engine disposes of it. */
  runner: StepRunner;
  /** Without one, prompts must be ids, and texts are empty. */
  tokenizer?: Pick<Tokenizer, 'encode' | 'streamDecoder'> | undefined;
  /** Tokens that end a text; default none. */
  endTokenIds?: readonly number[];
  /** Tokens of a text that the model reads at most: all but the last; default as many as the pages hold. */
  contextTokens?: number;
  limits?: Partial<SchedulerLimits>;
  /** Whether texts that begin alike share computed pages; default true. */
  prefixCache?: boolean;
  /** Guesses tokens for the model to verify; the engine disposes of it. Default none. */
  drafter?: Drafter;
  /** Guesses of an answer in a step; default 4. */
  draftTokens?: number;
}

/** What the engine knows of a request besides its answers. */
interface Served {
  readonly stream: AnswerStream;
  readonly unlisten: () => void;
}

export class ServingEngine implements AsyncDisposable {
  readonly contextTokens: number;
  readonly #options: ServingOptions;
  readonly #limits: SchedulerLimits;
  readonly #pool: PagePool;
  readonly #cache: PrefixCache | undefined;
  readonly #scheduler: Scheduler;
  readonly #served = new Map<Request, Served>();
  #order = 0;
  #loop: Promise<void> | undefined;
  #state: 'open' | 'draining' | 'disposed' = 'open';
  readonly #sums = { steps: 0, computedTokens: 0, promptTokens: 0, newTokens: 0 };
  readonly #finished: Record<FinishReason, number> = { length: 0, end: 0, stop: 0, closed: 0 };
  readonly #failed: Record<string, number> = {};

  /** @throws CONFIG */
  constructor(options: ServingOptions) {
    checkServingOptions(options);
    const { runner, prefixCache = true, limits } = options;
    const { pages, pageBytes = 0, pageTokens, vocabSize } = runner;
    this.#options = options;
    this.#limits = resolveLimits(limits);
    this.contextTokens = options.contextTokens ?? pages * pageTokens;
    this.#pool = new PagePool({ pages, pageBytes });
    this.#cache = prefixCache ? new PrefixCache(this.#pool) : undefined;
    this.#scheduler = new Scheduler({
      pool: this.#pool,
      cache: this.#cache,
      pageTokens,
      vocabSize,
      limits: this.#limits,
    });
  }

  /**
   * Queues a request.
   *
   * @returns a stream of its tokens; errors from here on come through it: ABORTED, TIMEOUT, and what the model throws
   * @throws CONFIG for wrong options, ids or sizes; OVERLOADED when too many requests wait, or the engine drains; DISPOSED
   */
  submit(prompt: string | readonly number[] | Int32Array, options: RequestOptions = {}): AnswerStream {
    if (this.#state !== 'open') throw this.#closedError();
    const request = this.#request(prompt, options);
    this.#scheduler.submit(request);
    this.#sums.promptTokens += request.promptIds.length;
    const stream = new AnswerStream(request, () => this.#end(request));
    const { signal } = options;
    const onAbort = () => this.#end(request, { error: abortError(signal!.reason) });
    this.#served.set(request, { stream, unlisten: () => signal?.removeEventListener('abort', onAbort) });
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted) onAbort();
    this.#loop ??= this.#run();
    return stream;
  }

  /**
   * Takes no more requests and waits for those it has.
   *
   * @param timeoutMs after which the rest ends with ABORTED; default never
   */
  async drain({ timeoutMs }: { timeoutMs?: number } = {}): Promise<void> {
    if (this.#state === 'open') this.#state = 'draining';
    const end = () => this.#endAll(abortError('the engine has drained for long enough'));
    const timer = timeoutMs === undefined ? undefined : setTimeout(end, timeoutMs);
    await this.#loop;
    clearTimeout(timer);
  }

  get metrics(): ServingMetrics {
    const { running, waiting, preemptions, drafted, accepted } = this.#scheduler;
    return {
      running,
      waiting,
      pagesUsed: this.#pool.used,
      pages: this.#pool.pages,
      pageBytesUsed: this.#pool.usedBytes,
      prefixQueries: this.#cache?.queries ?? 0,
      prefixHits: this.#cache?.hits ?? 0,
      preemptions,
      ...this.#sums,
      draftedTokens: drafted,
      acceptedTokens: accepted,
      finished: { ...this.#finished },
      failed: { ...this.#failed },
    };
  }

  /** Ends all requests with DISPOSED, waits for the step that is under way, and frees the model. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'disposed') return;
    this.#state = 'disposed';
    this.#endAll(this.#closedError());
    await this.#loop;
    this.#options.drafter?.[Symbol.dispose]();
    this.#options.runner[Symbol.dispose]();
  }

  #request(prompt: string | readonly number[] | Int32Array, options: RequestOptions): Request {
    const { runner, tokenizer, endTokenIds = [] } = this.#options;
    if (!tokenizer && (typeof prompt === 'string' || options.stop !== undefined))
      throw configError('a tokenizer for texts', 'none', 'give the ids of tokens instead');
    const promptIds = typeof prompt === 'string' ? tokenizer!.encode(prompt) : Array.from(prompt);
    if (promptIds.length === 0) throw configError('a prompt of at least one token', '0');
    checkIds('submit', 'token ids', promptIds, runner.vocabSize);
    const resolved = resolveRequestOptions(options, {
      promptTokens: promptIds.length,
      contextTokens: this.contextTokens,
      cacheTokens: runner.pages * runner.pageTokens,
      answers: this.#limits.sequences,
    });
    checkOptionIds('submit', resolved, runner.vocabSize);
    const { pageTokens } = runner;
    const arrivedMs = performance.now();
    return new Request({
      order: this.#order++,
      promptIds,
      options: resolved,
      endTokenIds,
      tokenizer,
      pageTokens,
      arrivedMs,
    });
  }

  /** Steps until there is nothing to do. */
  async #run(): Promise<void> {
    do {
      // Requests of one turn begin together; aborts and new requests come in between two steps.
      await nextTurn();
      try {
        await this.#step();
      } catch (error) {
        this.#endAll(stepError(error));
      }
    } while (this.#scheduler.busy);
    this.#loop = undefined;
  }

  async #step(): Promise<void> {
    const now = performance.now();
    for (const request of this.#scheduler.requests)
      if (now >= request.deadlineMs) this.#end(request, { error: timeoutError(request.options.timeoutMs) });
    await this.#guess();
    const entries = this.#scheduler.plan();
    if (entries.length > 0) await this.#compute(entries);
  }

  /** Asks for guesses, the fewer for each answer the more of them there are: rows of a busy step have better uses. */
  async #guess(): Promise<void> {
    const { drafter, draftTokens = 4, runner } = this.#options;
    const { stepTokens, spareLogitRows } = this.#limits;
    if (!drafter) return;
    const room = Math.min(spareLogitRows, stepTokens - this.#scheduler.running);
    const answers = this.#scheduler.guessable.slice(0, Math.max(0, room));
    if (answers.length === 0) return;
    const each = Math.min(draftTokens, Math.floor(room / answers.length));
    const requests = answers.map(({ id, tokens, unwritten }) => ({ id, tokens, most: Math.min(each, unwritten - 1) }));
    try {
      const guesses = await drafter.propose(requests);
      for (const [i, answer] of answers.entries()) {
        checkIds('draft', 'token ids', guesses[i]!, runner.vocabSize);
        answer.drafts = guesses[i]!.slice(0, requests[i]!.most);
      }
    } catch (error) {
      for (const { request } of answers) this.#end(request, { error: stepError(error) });
    }
  }

  async #compute(entries: readonly StepEntry[]): Promise<void> {
    const { runner } = this.#options;
    const batch = stepBatch(entries, runner.pageTokens);
    let outcomes: Outcome[];
    try {
      this.#sums.steps++;
      this.#sums.computedTokens += batch.ids.length;
      outcomes = this.#scheduler.commit(entries, await runner.step(batch));
    } catch (error) {
      return this.#isolate(entries, error);
    }
    for (const { request, events } of outcomes) {
      this.#sums.newTokens += events.filter(({ fromPrompt }) => !fromPrompt).length;
      this.#served.get(request)?.stream.push(events);
    }
    // Only now: a request has an outcome for each of its answers.
    for (const { request, error } of outcomes) {
      if (error !== undefined) this.#end(request, { error });
      else if (request.finished) this.#end(request);
    }
  }

  /** Finds the texts with which a step fails, and computes the others without them. */
  async #isolate(entries: readonly StepEntry[], error: unknown): Promise<void> {
    const alive = entries.filter(({ answer }) => answer.state === 'running');
    const isOver = DsError.is(error) && error.code === 'DISPOSED';
    if (isOver || entries.length === 1) {
      for (const { answer } of alive) this.#end(answer.request, { error: stepError(error) });
      return;
    }
    const half = Math.ceil(entries.length / 2);
    for (const part of [entries.slice(0, half), entries.slice(half)]) {
      const rest = part.filter(({ answer }) => answer.state === 'running');
      if (rest.length > 0) await this.#compute(rest);
    }
  }

  /** Ends a request, whatever its state; without a failure, its stream gives what there is. */
  #end(request: Request, failure?: { readonly error: unknown }): void {
    const served = this.#served.get(request);
    if (!served) return;
    this.#served.delete(request);
    served.unlisten();
    this.#scheduler.end(request);
    for (const { id, sequence } of request.answers) {
      this.#options.drafter?.forget(id);
      if (!failure) this.#finished[sequence.finishReason ?? 'closed']++;
    }
    if (failure) {
      const code = DsError.is(failure.error) ? failure.error.code : 'INTERNAL';
      this.#failed[code] = (this.#failed[code] ?? 0) + 1;
    }
    served.stream.end(failure);
  }

  #endAll(error: DsError): void {
    for (const request of [...this.#served.keys()]) this.#end(request, { error });
  }

  #closedError(): DsError {
    if (this.#state === 'disposed')
      return new DsError({
        code: 'DISPOSED',
        op: 'serve',
        expected: 'an engine in use',
        actual: 'one that was disposed',
      });
    const [expected, actual] = ['an engine that takes requests', 'one that drains'];
    return new DsError({ code: 'OVERLOADED', op: 'submit', expected, actual, hint: 'ask another one' });
  }
}

function configError(expected: string, actual: string, hint = ''): DsError {
  return new DsError({ code: 'CONFIG', op: 'submit', expected, actual, hint });
}

function abortError(cause: unknown): DsError {
  return new DsError({ code: 'ABORTED', op: 'serve', expected: 'to finish', actual: 'an abort', cause });
}

function timeoutError(timeoutMs: number): DsError {
  return new DsError({ code: 'TIMEOUT', op: 'serve', expected: `an end within ${timeoutMs} ms`, actual: 'none' });
}

function stepError(cause: unknown): DsError {
  if (DsError.is(cause)) return cause;
  const actual = cause instanceof Error ? cause.message : String(cause);
  return new DsError({ code: 'INTERNAL', op: 'serve', expected: 'a step of the model', actual, cause });
}
