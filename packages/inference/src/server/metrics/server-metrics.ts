/** What /metrics tells. Names follow vLLM's where they mean the same, with `ds_` in front. */
import type { Served } from '../http/http-server';
import type { ServedMetrics, ServedModel, ServedRequest, ServedToken } from '../served-model';
import { Counter, exposition, type Family, gaugeLine, Histogram } from './prometheus';

const requestBounds = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const tokenBounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const firstTokenBounds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export class ServerMetrics {
  readonly #model: ServedModel;
  readonly #http = new Counter();
  readonly #finished = new Counter();
  readonly #prompt = new Counter();
  readonly #generated = new Counter();
  readonly #firstToken = new Histogram(firstTokenBounds);
  readonly #betweenTokens = new Histogram(tokenBounds);
  readonly #whole = new Histogram(requestBounds);

  constructor(model: ServedModel) {
    this.#model = model;
  }

  served({ path, status }: Served): void {
    this.#http.add({ path, status: String(status) });
  }

  /** Watches the tokens of a request on their way. */
  async *watched(request: ServedRequest, tokens: AsyncIterable<ServedToken>): AsyncGenerator<ServedToken, void> {
    const labels = { model_name: this.#model.id };
    const startMs = performance.now();
    const lastMs = new Map<number, number>();
    this.#prompt.add(labels, request.promptIds.length);
    for await (const token of tokens) {
      if (!token.fromPrompt) {
        const nowMs = performance.now();
        const before = lastMs.get(token.index);
        if (before !== undefined) this.#betweenTokens.observe((nowMs - before) / 1000);
        else if (lastMs.size === 0) this.#firstToken.observe((nowMs - startMs) / 1000);
        lastMs.set(token.index, nowMs);
        this.#generated.add(labels);
      }
      if (token.finishReason) this.#finished.add({ ...labels, finished_reason: token.finishReason });
      yield token;
    }
    this.#whole.observe((performance.now() - startMs) / 1000);
  }

  text(): string {
    const labels = { model_name: this.#model.id };
    const engine = this.#model.metrics();
    const now = (type: 'gauge' | 'counter', name: string, help: string, key: keyof ServedMetrics): Family => ({
      name,
      type,
      help,
      lines: (shown) => [gaugeLine(shown, labels, engine[key])],
    });
    const counted = (name: string, help: string, counter: Counter): Family => ({
      name,
      type: 'counter',
      help,
      lines: (shown) => counter.lines(shown),
    });
    const timed = (name: string, help: string, histogram: Histogram): Family => ({
      name,
      type: 'histogram',
      help,
      lines: (shown) => histogram.lines(shown, labels),
    });
    return exposition([
      now('gauge', 'ds_num_requests_running', 'Requests in the making.', 'running'),
      now('gauge', 'ds_num_requests_waiting', 'Requests that wait.', 'waiting'),
      now('gauge', 'ds_kv_cache_usage_perc', 'Share of the pages for keys and values in use, 0 to 1.', 'cacheUsage'),
      now('gauge', 'ds_kv_cache_pages_in_use', 'Pages for keys and values in use.', 'pagesInUse'),
      now('counter', 'ds_num_preemptions_total', 'Answers that gave their pages to older ones.', 'preemptions'),
      now('counter', 'ds_prefix_cache_queries_total', 'Prompt tokens looked for in the prefix cache.', 'prefixQueries'),
      now('counter', 'ds_prefix_cache_hits_total', 'Prompt tokens found there.', 'prefixHits'),
      counted('ds_prompt_tokens_total', 'Tokens of prompts.', this.#prompt),
      counted('ds_generation_tokens_total', 'Tokens written.', this.#generated),
      counted('ds_request_success_total', 'Answers that ended, by reason.', this.#finished),
      counted('ds_http_requests_total', 'Requests, by path and status.', this.#http),
      timed('ds_time_to_first_token_seconds', 'From the request to its first token.', this.#firstToken),
      timed('ds_inter_token_latency_seconds', 'Between two tokens of an answer.', this.#betweenTokens),
      timed('ds_e2e_request_latency_seconds', 'From the request to its last token.', this.#whole),
    ]);
  }
}
