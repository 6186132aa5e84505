/**
 * The inference engine: a model folder in memory, ready to write, to score and to give logits.
 *
 * It knows no model family: config.json names one, and @ds/nn says what it is. All arithmetic is queued on a stream and
 * awaited, so the event loop stays free.
 */
import { DsError, Tensor } from '@ds/core-native';
import type { Tokenizer } from '@ds/io';
import type { CausalLMShape } from '@ds/nn';
import { type GenerationTimes, generate } from './generation/generate';
import {
  type GenerateOptions,
  type ResolvedGenerateOptions,
  resolveGenerateOptions,
} from './generation/generate-options';
import { type GenerationResult, GenerationStream, resultOf } from './generation/generation-stream';
import { type GeneratedToken, Sequence } from './generation/sequence';
import { inActivations } from './model/activations';
import { type LoadedFolder, type LoadOptions, loadFolder } from './model/load-folder';
import type { ModelInMemory } from './model/model-in-memory';

/** A prompt: text, or the ids of its tokens. */
export type Prompt = string | readonly number[] | Int32Array;

export class InferenceEngine implements AsyncDisposable {
  /** The folder it was loaded from. */
  readonly folder: string;
  readonly shape: CausalLMShape;
  /** Undefined where the folder has no tokenizer.json; then prompts must be ids, and texts are empty. */
  readonly tokenizer: Tokenizer | undefined;
  /** Tokens that end a text. */
  readonly endTokenIds: readonly number[];
  readonly #memory: ModelInMemory;
  #disposed = false;

  private constructor({ folder, model, storage, tokenizer, endTokenIds }: LoadedFolder) {
    this.folder = folder;
    this.shape = model.shape;
    this.tokenizer = tokenizer;
    this.endTokenIds = endTokenIds;
    this.#memory = { model, storage, users: new Set() };
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
   * Continues several prompts at once, padded on the left to one length. Each gets what it would get alone.
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

  /** Turns a text into the ids that the model would read. @throws CONFIG without a tokenizer */
  encode(text: string): number[] {
    if (this.tokenizer) return this.tokenizer.encode(text);
    throw noTokenizer('encode', 'a text', this.folder);
  }

  /** Gives the logits [V] of the token that follows a prompt, before any sampling. @throws CONFIG */
  async logits(prompt: Prompt): Promise<Float32Array> {
    const ids = this.#idsOf('logits', prompt);
    const { model, storage } = this.#live('logits');
    const [last] = inActivations(() => {
      const options = { dtype: 'i32', device: storage.device } as const;
      const hidden = model.hidden({ ids: Tensor.from(ids, [1, ids.length], options) });
      const C = hidden.dim(-1);
      return [model.logits(hidden.view([1, C], (ids.length - 1) * C))];
    });
    using logits = last;
    return await logits.read<'f32'>();
  }

  /**
   * Gives the mean loss of predicting each token of a text from those before it, in nats.
   *
   * @throws CONFIG for fewer than two tokens
   */
  async loss(prompt: Prompt): Promise<number> {
    const ids = this.#idsOf('loss', prompt, 2);
    const { model, storage } = this.#live('loss');
    const T = ids.length - 1;
    const options = { dtype: 'i32', device: storage.device } as const;
    const tensor = (values: readonly number[]) => Tensor.from(values, [1, T], options);
    const [each] = inActivations(() => [
      model.loss({ ids: tensor(ids.slice(0, T)), targets: tensor(ids.slice(1)), scale: 1 / T }),
    ]);
    using losses = each;
    return (await losses.numbers()).reduce((sum, loss) => sum + loss, 0) / T;
  }

  /** Ends what is still generating and frees all memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const { model, storage, users } = this.#memory;
    for (const user of users) user[Symbol.dispose]();
    await storage.device.defaultStream.join();
    model[Symbol.dispose]();
    storage[Symbol.dispose]();
  }

  #live(op: string): ModelInMemory {
    if (!this.#disposed) return this.#memory;
    throw new DsError({ code: 'DISPOSED', op, expected: 'an engine in use', actual: 'one that was disposed' });
  }

  #sequence(op: string, prompt: Prompt, options: ResolvedGenerateOptions, seed: number | undefined): Sequence {
    this.#live(op);
    const { endTokenIds, tokenizer } = this;
    if (options.stop.length > 0 && !tokenizer) throw noTokenizer(op, 'stop texts', this.folder);
    return new Sequence({ promptIds: this.#idsOf(op, prompt), endTokenIds, tokenizer, options, seed });
  }

  #idsOf(op: string, prompt: Prompt, least = 1): readonly number[] {
    const ids = typeof prompt === 'string' ? this.encode(prompt) : Array.from(prompt);
    if (ids.length < least)
      throw new DsError({
        code: 'CONFIG',
        op,
        expected: `a prompt of at least ${least === 1 ? 'one token' : `${least} tokens`}`,
        actual: String(ids.length),
        hint: least === 1 ? 'to start from nothing, give the id of a begin-of-text token' : '',
      });
    const wrong = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= this.shape.vocabSize);
    if (wrong < 0) return ids;
    throw new DsError({
      code: 'CONFIG',
      op,
      expected: `token ids from 0 to ${this.shape.vocabSize - 1}`,
      actual: `${ids[wrong]} at place ${wrong}`,
    });
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
