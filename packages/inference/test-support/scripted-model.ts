/** A model whose answers a test writes: tokens are bytes, and a page holds 16 of them. */
import { setTimeout as delay } from 'node:timers/promises';
import { DsError } from '@ds/core-native';
import { StopTexts } from '../src/generation/stop-texts';
import type { ServedMetrics, ServedModel, ServedRequest, ServedToken } from '../src/server/served-model';

const specials = ['<|im_start|>', '<|im_end|>'];
const endId = 257;
const pageTokens = 16;

/** Shaped like Qwen's: system, tools, calls and results, all of which a test finds again in the prompt. */
export const hermesTemplate = `{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{%- endif %}{{- '<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools>\\nAnswer with <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\\n' }}{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}{%- if message.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}{%- elif message.role == 'user' or message.role == 'assistant' %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}{%- if message.tool_calls %}{%- for call in message.tool_calls %}{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`;

export interface ScriptedModelOptions {
  /** What answer i to a prompt says; default 'Hello.' */
  readonly answer?: (prompt: string, request: ServedRequest, index: number) => string;
  readonly template?: string;
  readonly contextTokens?: number;
  /** Between two tokens. */
  readonly tokenMs?: number;
  /** Before the first token: reading the prompt. */
  readonly promptMs?: number;
  /** Requests at once; further ones wait. */
  readonly slots?: number;
  /** Says at which token the model fails. */
  readonly failWhen?: (prompt: string, token: number) => boolean;
}

export class ScriptedModel implements ServedModel {
  readonly id = 'scripted';
  readonly vocabSize = 256 + specials.length;
  readonly contextTokens: number;
  readonly chatTemplate: ServedModel['chatTemplate'];
  readonly requests: ServedRequest[] = [];
  pagesInUse = 0;
  tokensWritten = 0;
  readonly #options: ScriptedModelOptions;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(options: ScriptedModelOptions = {}) {
    this.#options = options;
    this.contextTokens = options.contextTokens ?? 1 << 22;
    const template = options.template ?? hermesTemplate;
    this.chatTemplate =
      template === '' ? undefined : { template, toolTemplate: undefined, tokens: { eos_token: '<|im_end|>' } };
  }

  encode(text: string): number[] {
    return text
      .split(/(<\|im_start\|>|<\|im_end\|>)/)
      .flatMap((part) => (specials.includes(part) ? [256 + specials.indexOf(part)] : Array.from(Buffer.from(part))));
  }

  decode(ids: readonly number[]): string {
    return Buffer.concat(ids.map((id) => Buffer.from(this.tokenBytes(id)))).toString();
  }

  tokenBytes(id: number): Uint8Array {
    return id < 256 ? Uint8Array.of(id) : Buffer.from(specials[id - 256]!);
  }

  submit(request: ServedRequest): AsyncIterable<ServedToken> {
    this.requests.push(request);
    return this.#answers(request);
  }

  metrics(): ServedMetrics {
    return {
      running: this.#running,
      waiting: this.#waiting.length,
      cacheUsage: Math.min(1, this.pagesInUse / 1000),
      pagesInUse: this.pagesInUse,
      preemptions: 0,
      prefixQueries: 0,
      prefixHits: 0,
    };
  }

  async drain(): Promise<void> {
    while (this.#running + this.#waiting.length > 0) await delay(1);
  }

  async *#answers(request: ServedRequest): AsyncGenerator<ServedToken, void> {
    const { slots = Number.POSITIVE_INFINITY, promptMs = 0 } = this.#options;
    const { promptIds, signal, options } = request;
    if (this.#running >= slots) await this.#turn(signal);
    this.#running++;
    let pages = Math.ceil(promptIds.length / pageTokens);
    this.pagesInUse += pages;
    try {
      await this.#pause(promptMs, signal);
      const prompt = this.decode(promptIds);
      const answers = Array.from({ length: options.n ?? 1 }, (_, i) => this.#tokens(prompt, request, i));
      for (let step = 0, left = answers.length; left > 0; step++)
        for (const tokens of answers) {
          const { value, done } = tokens.next();
          if (done) continue;
          await this.#pause(this.#options.tokenMs ?? 0, signal);
          if (this.#options.failWhen?.(prompt, step))
            throw new Error('the kernel at /secret/path, 0x7ffe1234, has failed');
          this.tokensWritten++;
          if ((promptIds.length + step) % pageTokens === 0) {
            pages++;
            this.pagesInUse++;
          }
          yield value;
          if (value.finishReason) left--;
        }
    } finally {
      this.pagesInUse -= pages;
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  *#tokens(prompt: string, request: ServedRequest, index: number): Generator<ServedToken, void> {
    const { maxNewTokens, stop = [], logprobs, echo, promptLogprobs, ignoreEos } = request.options;
    const answer = this.#options.answer?.(prompt, request, index) ?? 'Hello.';
    const scored = (count: number | undefined) =>
      count === undefined
        ? {}
        : { logprob: -0.5, top: Array.from({ length: count }, (_, i) => ({ id: 65 + i, logprob: -0.5 - i })) };
    if (echo)
      for (const [i, id] of request.promptIds.entries())
        yield { id, index, text: String.fromCharCode(id), fromPrompt: true, ...(i > 0 ? scored(promptLogprobs) : {}) };
    const decoder = new TextDecoder();
    const stops = new StopTexts(stop);
    let ids = [...Buffer.from(answer), endId];
    if (ignoreEos) ids = Array.from({ length: maxNewTokens }, (_, i) => ids[i % (ids.length - 1)]!);
    for (const [i, id] of ids.entries()) {
      let text = id === endId ? '' : stops.push(decoder.decode(Uint8Array.of(id), { stream: true }));
      const finishReason =
        id === endId ? 'end' : stops.stopped ? 'stop' : i + 1 === maxNewTokens ? 'length' : undefined;
      if (finishReason) text += stops.push(decoder.decode()) + stops.flush();
      yield { id, index, text, ...scored(logprobs), ...(finishReason ? { finishReason } : {}) };
      if (finishReason) return;
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    let start!: () => void;
    const started = new Promise<void>((resolve) => {
      start = resolve;
    });
    this.#waiting.push(start);
    const left = () => {
      this.#waiting.splice(this.#waiting.indexOf(start), 1);
      start();
    };
    signal.addEventListener('abort', left);
    await started;
    signal.removeEventListener('abort', left);
    if (signal.aborted) throw aborted();
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (ms > 0) await delay(ms, undefined, { signal }).catch(() => {});
    else await new Promise((resolve) => setImmediate(resolve));
    if (signal.aborted) throw aborted();
  }
}

function aborted(): DsError {
  return new DsError({ code: 'ABORTED', op: 'serve', expected: 'to finish', actual: 'an abort' });
}

/** What the user said last, in a prompt of `hermesTemplate`. */
export function lastUserText(prompt: string): string {
  return prompt.split('<|im_start|>user\n').at(-1)!.split('<|im_end|>')[0]!;
}
