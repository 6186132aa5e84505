/**
 * The inference engine: a model folder in memory, ready to write, to score and to give logits.
 *
 * It knows no model family: config.json names one, and @ds/nn says what it is. All arithmetic is queued on a stream and
 * awaited, so the event loop stays free.
 */
import { DsError } from '@ds/core-native';
import type { Tokenizer } from '@ds/io';
import { DecoderRunner, type DecoderRunnerOptions } from './decoder/decoder-runner';
import type { StepRunner } from './decoder/step-runner';
import { checkIds, checkOptionIds } from './generation/check-ids';
import { Decoder } from './generation/decoder';
import { type GenerationTimes, generate } from './generation/generate';
import {
  DEFAULT_NEW_TOKENS,
  type GenerateOptions,
  type ResolvedGenerateOptions,
  resolveGenerateOptions,
} from './generation/generate-options';
import { type GenerationResult, GenerationStream, resultOf } from './generation/generation-stream';
import { type GeneratedToken, Sequence } from './generation/sequence';
import { type LoadedFolder, type LoadOptions, loadFolder } from './model/load-folder';
import type { ModelInMemory } from './model/model-in-memory';
import { meanLoss } from './model/score';
import { ServingEngine, type ServingOptions } from './serving/serving-engine';

/** A prompt: text, or the ids of its tokens. */
export type Prompt = string | readonly number[] | Int32Array;

/** Of `serve`: the engine's options, but for what the model brings. */
export type ServeOptions = Omit<ServingOptions, 'runner' | 'tokenizer' | 'endTokenIds' | 'contextTokens'> &
  DecoderRunnerOptions;

/** Sizes of a model, for people and for checks. */
export interface ModelShape {
  /** `model_type` in config.json */
  readonly family: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Tokens of the longest text, prompt included. Infinity where positions set no limit. */
  readonly contextTokens: number;
}

export class InferenceEngine implements AsyncDisposable {
  /** The folder it was loaded from. */
  readonly folder: string;
  readonly shape: ModelShape;
  /** Undefined where the folder has no tokenizer.json; then prompts must be ids, and texts are empty. */
  readonly tokenizer: Tokenizer | undefined;
  /** Tokens that end a text. */
  readonly endTokenIds: readonly number[];
  readonly #memory: ModelInMemory;
  #disposed = false;

  private constructor({ folder, model, tokenizer, endTokenIds }: LoadedFolder) {
    this.folder = folder;
    const { family, vocabSize, hiddenSize, layers } = model.description;
    const { heads, keyValueHeads, headSize } = layers[0]!.attention;
    const { contextTokens } = model;
    // biome-ignore format: one record
    this.shape = { family, vocabSize, hiddenSize, layers: layers.length, heads, keyValueHeads, headSize, contextTokens };
    this.tokenizer = tokenizer;
    this.endTokenIds = endTokenIds;
    this.#memory = { model, users: new Set() };
  }

  /**
   * Loads a Hugging Face model folder: config.json, safetensors in one file or in shards, and tokenizer.json if there is one.
   *
   * @throws IO, FORMAT, DTYPE, UNSUPPORTED naming file and tensor; CONFIG for wrong options; DEVICE; OOM; ABORTED
   */
  static async load(folder: string, options: LoadOptions = {}): Promise<InferenceEngine> {
    return new InferenceEngine(await loadFolder(folder, options));
  }

  /**
   * Continues a prompt.
   *
   * @returns a stream of tokens; `.text()` and `.final()` wait for all of them
   * @throws CONFIG for wrong options or ids outside the vocabulary
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): GenerationStream {
    const resolved = resolveGenerateOptions('generate', options);
    const sequence = this.#sequence('generate', prompt, resolved, resolved.seed);
    const times: GenerationTimes = { promptSeconds: 0, seconds: 0 };
    const steps = generate(this.#memory, [sequence], resolved, times);
    return new GenerationStream(firstOfEach(steps), () => resultOf(sequence, times));
  }

  /**
   * Continues several prompts at once. On the CPU each gets, bit for bit, what it would get alone.
   *
   * @throws CONFIG as `generate`; ABORTED
   */
  async generateBatch(prompts: readonly Prompt[], options: GenerateOptions = {}): Promise<GenerationResult[]> {
    const resolved = resolveGenerateOptions('generateBatch', options);
    const sequences = prompts.map((prompt, i) =>
      this.#sequence('generateBatch', prompt, resolved, resolved.seed === undefined ? undefined : resolved.seed + i),
    );
    if (sequences.length === 0) return [];
    const times: GenerationTimes = { promptSeconds: 0, seconds: 0 };
    for await (const _ of generate(this.#memory, sequences, resolved, times));
    return sequences.map((sequence) => resultOf(sequence, times));
  }

  /**
   * Serves many requests at once, until either engine is disposed of. On the CPU each gets, bit for bit, what it would get
   * alone, whatever others ask.
   *
   * @param options.pages pages for keys and values, each of `pageTokens` tokens (8, 16 or 32; default 16)
   * @throws CONFIG; OOM
   */
  serve({ pages, pageTokens = 16, ...options }: ServeOptions): ServingEngine {
    const memory = this.#live('serve');
    const decoder = new DecoderRunner(memory.model, { pages, pageTokens });
    memory.users.add(decoder);
    const { vocabSize, pageBytes } = decoder;
    const runner: StepRunner = {
      pageTokens,
      pages,
      pageBytes,
      vocabSize,
      step: (batch) => decoder.step(batch),
      [Symbol.dispose]() {
        memory.users.delete(decoder);
        decoder[Symbol.dispose]();
      },
    };
    const { tokenizer, endTokenIds } = this;
    const contextTokens = Math.min(this.shape.contextTokens, pages * pageTokens);
    try {
      return new ServingEngine({ runner, tokenizer, endTokenIds, contextTokens, ...options });
    } catch (error) {
      runner[Symbol.dispose]();
      throw error;
    }
  }

  /** Turns a text into the ids that the model would read. @throws CONFIG without a tokenizer */
  encode(text: string): number[] {
    if (this.tokenizer) return this.tokenizer.encode(text);
    throw noTokenizer('encode', 'a text', this.folder);
  }

  /** Gives the logits [V] of the token that follows a prompt, before any sampling. @throws CONFIG */
  async logits(prompt: Prompt): Promise<Float32Array> {
    const ids = this.#idsOf('logits', prompt);
    using decoder = new Decoder(this.#live('logits'), {
      texts: [{ promptIds: ids, maxNewTokens: 1 }],
      want: 'logits',
    });
    const [next] = await decoder.readPrompts(() => {});
    return next!.logits!;
  }

  /**
   * Gives the mean loss of predicting each token of a text from those before it, in nats.
   *
   * @throws CONFIG for fewer than two tokens, or more than the model reads
   */
  async loss(prompt: Prompt): Promise<number> {
    return await meanLoss(this.#live('loss'), this.#idsOf('loss', prompt, 2, 1));
  }

  /** Ends what is still generating and frees all memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const { model, users } = this.#memory;
    for (const user of users) user[Symbol.dispose]();
    await model.device.defaultStream.join();
    model[Symbol.dispose]();
  }

  #live(op: string): ModelInMemory {
    if (!this.#disposed) return this.#memory;
    throw new DsError({ code: 'DISPOSED', op, expected: 'an engine in use', actual: 'one that was disposed' });
  }

  #sequence(op: string, prompt: Prompt, options: ResolvedGenerateOptions, seed: number | undefined): Sequence {
    this.#live(op);
    const { endTokenIds, tokenizer } = this;
    if (options.stop.length > 0 && !tokenizer) throw noTokenizer(op, 'stop texts', this.folder);
    checkOptionIds(op, options, this.shape.vocabSize);
    const promptIds = this.#idsOf(op, prompt);
    const maxNewTokens = this.#newTokens(op, promptIds.length, options);
    return new Sequence({ promptIds, maxNewTokens, endTokenIds, tokenizer, options, seed });
  }

  /** How many tokens may follow a prompt: the last of them is never read. @throws CONFIG for more than the context holds */
  #newTokens(op: string, promptTokens: number, options: ResolvedGenerateOptions): number {
    const room = this.shape.contextTokens - promptTokens + 1;
    const { minNewTokens, maxNewTokens: wanted = Math.max(minNewTokens, Math.min(DEFAULT_NEW_TOKENS, room)) } = options;
    if (wanted <= room) return wanted;
    throw new DsError({
      code: 'CONFIG',
      op,
      expected: `at most ${room} for maxNewTokens behind ${promptTokens} prompt tokens: the model reads ${this.shape.contextTokens}`,
      actual: String(wanted),
      hint: this.#contextHint,
    });
  }

  /** What to do about a text that is too long. */
  get #contextHint(): string {
    const most = this.#memory.model.description.context?.most ?? Number.POSITIVE_INFINITY;
    return most > this.shape.contextTokens
      ? `load the model with a larger contextTokens${Number.isFinite(most) ? `, up to ${most}` : ''}`
      : 'shorten the text; its positions go no further';
  }

  /** @param unread tokens at the end that the model does not read */
  #idsOf(op: string, prompt: Prompt, least = 1, unread = 0): readonly number[] {
    const ids = typeof prompt === 'string' ? this.encode(prompt) : Array.from(prompt);
    const limit = this.shape.contextTokens;
    if (ids.length - unread > limit)
      throw new DsError({
        code: 'CONFIG',
        op,
        expected: `a prompt of at most ${limit + unread} tokens: the model reads ${limit}`,
        actual: String(ids.length),
        hint: this.#contextHint,
      });
    if (ids.length < least)
      throw new DsError({
        code: 'CONFIG',
        op,
        expected: `a prompt of at least ${least === 1 ? 'one token' : `${least} tokens`}`,
        actual: String(ids.length),
        hint: least === 1 ? 'to start from nothing, give the id of a begin-of-text token' : '',
      });
    checkIds(op, 'token ids', ids, this.shape.vocabSize);
    return ids;
  }
}

async function* firstOfEach(
  steps: AsyncGenerator<readonly (GeneratedToken | undefined)[], void, undefined>,
): AsyncGenerator<GeneratedToken, void, undefined> {
  for await (const [token] of steps) yield token!;
}

function noTokenizer(op: string, what: string, folder: string): DsError {
  return new DsError({
    code: 'CONFIG',
    op,
    expected: `a tokenizer.json in ${folder} for ${what}`,
    actual: 'none',
    hint: 'give the ids of tokens instead, or put the tokenizer of the model there',
  });
}
