/**
 * Runs a model token by token over a batch of texts, with the keys and values of the earlier tokens in a cache.
 *
 * Prompts of different lengths are padded on the left, so that the last token of all is in the last column.
 */
import { argmax, DsError, embedding, nonfiniteIndex, Tensor, withOwner } from '@ds/core-native';
import { KeyValueCache } from '@ds/nn';
import { inActivations } from '../model/activations';
import type { ModelInMemory } from '../model/model-in-memory';

/** What is known of the next token of each text: the most likely id, or all logits [B, V]. */
export type NextTokens =
  | { readonly largest: Int32Array; readonly logits?: undefined }
  | { readonly largest?: undefined; readonly logits: Float32Array };

export interface DecoderOptions {
  readonly prompts: readonly (readonly number[])[];
  readonly maxNewTokens: number;
  readonly needsLogits: boolean;
}

/** Tokens that go through the model at once while a prompt is read: bounds activations, and the time to an abort. */
const PROMPT_PIECE_TOKENS = 512;

/** Keys lie in groups of this many tokens. */
const CACHE_GROUP = 16;

export class Decoder implements Disposable {
  readonly #memory: ModelInMemory;
  readonly #needsLogits: boolean;
  readonly #prompts: readonly (readonly number[])[];
  #cache: KeyValueCache | undefined;

  /** @throws OOM */
  constructor(memory: ModelInMemory, { prompts, maxNewTokens, needsLogits }: DecoderOptions) {
    this.#memory = memory;
    this.#needsLogits = needsLogits;
    this.#prompts = prompts;
    const { layers, heads, headSize } = memory.model.shape;
    const { device, dtype } = memory.storage;
    const longest = Math.max(...prompts.map((prompt) => prompt.length));
    // The last token is never read.
    const capacity = Math.ceil((longest + maxNewTokens - 1) / CACHE_GROUP) * CACHE_GROUP;
    this.#cache = withOwner(
      'key-value cache',
      () => new KeyValueCache({ layers, heads, headSize, batch: prompts.length, capacity, device, dtype }),
    );
    memory.users.add(this);
  }

  /** Reads the prompts; `onPiece` is called before each piece of them. */
  async readPrompts(onPiece: () => void): Promise<NextTokens> {
    const B = this.#prompts.length;
    const T = Math.max(...this.#prompts.map((prompt) => prompt.length));
    const padded = this.#prompts.some((prompt) => prompt.length !== T);
    const { padTokenId } = this.#memory.model.shape;
    const at = (b: number, t: number): number | undefined => this.#prompts[b]![t - T + this.#prompts[b]!.length];
    const perPiece = Math.max(1, Math.floor(PROMPT_PIECE_TOKENS / B));
    for (let from = 0; ; from += perPiece) {
      onPiece();
      const width = Math.min(perPiece, T - from);
      const places = Array.from({ length: B * width }, (_, i) => at(Math.floor(i / width), from + (i % width)));
      const ids = places.map((id) => id ?? padTokenId);
      const mask = padded ? places.map((id) => (id === undefined ? 0 : 1)) : undefined;
      const isLast = from + width === T;
      if (isLast) return this.#forward(ids, mask);
      this.#advance(ids, mask);
      await this.#memory.storage.device.defaultStream.join();
    }
  }

  /** Takes the next token of each text. */
  async next(ids: readonly number[]): Promise<NextTokens> {
    return this.#forward(ids, undefined);
  }

  [Symbol.dispose](): void {
    this.#cache?.[Symbol.dispose]();
    this.#cache = undefined;
    this.#memory.users.delete(this);
  }

  get #live(): KeyValueCache {
    if (this.#cache) return this.#cache;
    throw new DsError({
      code: 'DISPOSED',
      op: 'generate',
      expected: 'an engine in use',
      actual: 'one that was disposed',
      hint: 'take all tokens before the engine goes',
    });
  }

  /** Sends tokens [B, T] through the model. */
  #hidden(ids: readonly number[], mask: readonly number[] | undefined): Tensor {
    const cache = this.#live;
    const { model, storage } = this.#memory;
    const shape = [cache.batch, ids.length / cache.batch];
    return model.hiddenCached(Tensor.from(ids, shape, { dtype: 'i32', device: storage.device }), cache, mask);
  }

  #advance(ids: readonly number[], mask: readonly number[] | undefined): void {
    inActivations(() => {
      this.#hidden(ids, mask);
      return [];
    });
  }

  async #forward(ids: readonly number[], mask: readonly number[] | undefined): Promise<NextTokens> {
    const { model, storage } = this.#memory;
    const B = this.#live.batch;
    const T = ids.length / B;
    const made = inActivations(() => {
      const hidden = this.#hidden(ids, mask);
      const lastRows = Array.from({ length: B }, (_, b) => (b + 1) * T - 1);
      // Rows of a matrix by their numbers: what an embedding does.
      const last =
        T === 1 ? hidden : embedding(Tensor.from(lastRows, [B], { dtype: 'i32', device: storage.device }), hidden);
      const logits = model.logits(last);
      return [this.#needsLogits ? logits : argmax(logits), nonfiniteIndex(last)];
    });
    using scores = made[0];
    using nonfinite = made[1];
    const [values, place] = await Promise.all([scores.read(), nonfinite.item()]);
    if (place >= 0) throw nonfiniteState();
    return this.#needsLogits ? { logits: values as Float32Array } : { largest: values as Int32Array };
  }
}

function nonfiniteState(): DsError {
  return new DsError({
    code: 'INTERNAL',
    op: 'generate',
    expected: 'finite hidden states',
    actual: 'an infinity or a NaN',
    hint: 'the weights are damaged, or overflow in f16: load the model with dtype f32',
  });
}
