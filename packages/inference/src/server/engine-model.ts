/** The serving engine as the server's model. */
import path from 'node:path';
import { DsError } from '@ds/core-native';
import { type ChatTemplate, readChatTemplate, type Tokenizer, tokenBytes } from '@ds/io';
import type { InferenceEngine } from '../inference-engine';
import type { ServingEngine } from '../serving/serving-engine';
import type { ServedMetrics, ServedModel, ServedRequest, ServedToken } from './served-model';

export interface EngineModelOptions {
  /** By which requests name the model; default the name of its folder. */
  readonly modelId?: string;
  /** Tokens whose keys and values are held at once, of all texts together; default 8 contexts, 32,768 at most. */
  readonly cacheTokens?: number;
  /** Requests that may wait. */
  readonly queue: number;
}

const PAGE_TOKENS = 16;
const DEFAULT_CONTEXTS = 8;
const DEFAULT_CACHE_TOKENS = 32_768;

export class EngineModel implements ServedModel, AsyncDisposable {
  readonly id: string;
  readonly contextTokens: number;
  readonly vocabSize: number;
  readonly chatTemplate: ChatTemplate | undefined;
  readonly #tokenizer: Tokenizer;
  readonly #serving: ServingEngine;

  /** The engine stays the caller's. @throws DsError CONFIG for one without a tokenizer, FORMAT for a broken template, OOM */
  constructor(engine: InferenceEngine, options: EngineModelOptions) {
    const { folder, tokenizer, shape } = engine;
    if (!tokenizer)
      throw new DsError({
        code: 'CONFIG',
        op: 'serve',
        expected: `a tokenizer.json in ${folder}`,
        actual: 'none',
        hint: 'requests and answers are texts: put the tokenizer of the model there',
      });
    this.#tokenizer = tokenizer;
    this.chatTemplate = readChatTemplate(folder);
    this.id = options.modelId ?? path.basename(path.resolve(folder));
    this.vocabSize = shape.vocabSize;
    const cacheTokens = options.cacheTokens ?? Math.min(DEFAULT_CONTEXTS * shape.contextTokens, DEFAULT_CACHE_TOKENS);
    this.#serving = engine.serve({
      pages: Math.max(1, Math.ceil(cacheTokens / PAGE_TOKENS)),
      pageTokens: PAGE_TOKENS,
      limits: { waiting: options.queue },
    });
    this.contextTokens = this.#serving.contextTokens;
  }

  encode(text: string, addSpecialTokens: boolean): readonly number[] {
    return this.#tokenizer.encode(text, { addSpecialTokens });
  }

  decode(ids: readonly number[]): string {
    return this.#tokenizer.decode(ids);
  }

  tokenBytes(id: number): Uint8Array {
    return tokenBytes(this.#tokenizer, id);
  }

  submit({ promptIds, options, signal, cacheSalt }: ServedRequest): AsyncIterable<ServedToken> {
    return this.#serving.submit(promptIds, { ...options, signal, cacheSalt });
  }

  metrics(): ServedMetrics {
    const { running, waiting, pagesUsed, pages, preemptions, prefixQueries, prefixHits } = this.#serving.metrics;
    return {
      running,
      waiting,
      cacheUsage: pagesUsed / pages,
      pagesInUse: pagesUsed,
      preemptions,
      prefixQueries,
      prefixHits,
    };
  }

  drain(): Promise<void> {
    return this.#serving.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#serving[Symbol.asyncDispose]();
  }
}
