/**
 * Runs a model token by token over a few texts, with the keys and values of their earlier tokens in pages.
 *
 * The texts stand in a batch without padding: each costs its own tokens only.
 */
import { DecoderRunner, type DecoderRunnerOptions } from '../decoder/decoder-runner';
import type { StepBatch } from '../decoder/step-runner';
import type { ModelInMemory } from '../model/model-in-memory';

/** What is known of the next token of a text: the most likely id, or all logits [V]. */
export type NextToken =
  | { readonly id: number; readonly logits?: undefined }
  | { readonly id?: undefined; readonly logits: Float32Array };

export interface DecoderOptions {
  readonly texts: readonly { readonly promptIds: readonly number[]; readonly maxNewTokens: number }[];
  readonly want: StepBatch['want'];
  /** Tokens that go through the model at once while prompts are read; default 512: bounds activations, and the time to an abort. */
  readonly pieceTokens?: number;
  readonly pageTokens?: NonNullable<DecoderRunnerOptions['pageTokens']>;
}

/** New tokens of one text in a step. */
interface Piece {
  readonly text: number;
  readonly ids: readonly number[];
  /** Whether somebody wants to know what comes behind them. */
  readonly asks: boolean;
}

export class Decoder implements Disposable {
  readonly #memory: ModelInMemory;
  readonly #prompts: readonly (readonly number[])[];
  readonly #want: StepBatch['want'];
  readonly #pieceTokens: number;
  readonly #runner: DecoderRunner;
  /** Of each text. */
  readonly #pages: readonly Int32Array[];
  /** Tokens of each text that its pages hold. */
  readonly #past: number[];

  /** @throws OOM */
  constructor(memory: ModelInMemory, options: DecoderOptions) {
    const { texts, want, pieceTokens = 512, pageTokens = 16 } = options;
    this.#memory = memory;
    this.#prompts = texts.map(({ promptIds }) => promptIds);
    this.#want = want;
    this.#pieceTokens = pieceTokens;
    this.#past = texts.map(() => 0);
    let pages = 0;
    this.#pages = texts.map(({ promptIds, maxNewTokens }) => {
      const own = Math.ceil((promptIds.length + maxNewTokens - 1) / pageTokens); // the last token is never read
      pages += own;
      return Int32Array.from({ length: own }, (_, i) => pages - own + i);
    });
    this.#runner = new DecoderRunner(memory.model, { pages, pageTokens });
    memory.users.add(this);
  }

  /** Reads the prompts; `onPiece` is called before each piece of them. Gives what follows each. */
  async readPrompts(onPiece: () => void): Promise<NextToken[]> {
    const next: NextToken[] = [];
    for (let text = 0; text < this.#prompts.length; ) {
      onPiece();
      const pieces: Piece[] = [];
      for (let room = this.#pieceTokens; room > 0 && text < this.#prompts.length; ) {
        const prompt = this.#prompts[text]!;
        const past = this.#past[text]!;
        const ids = prompt.slice(past, past + room);
        const asks = past + ids.length === prompt.length;
        pieces.push({ text, ids, asks });
        room -= ids.length;
        if (asks) text++;
      }
      next.push(...(await this.#step(pieces)));
    }
    return next;
  }

  /** Takes the next token of some texts, and gives what follows each of them. */
  async next(tokens: readonly { readonly text: number; readonly id: number }[]): Promise<NextToken[]> {
    return this.#step(tokens.map(({ text, id }) => ({ text, ids: [id], asks: true })));
  }

  [Symbol.dispose](): void {
    this.#runner[Symbol.dispose]();
    this.#memory.users.delete(this);
  }

  async #step(pieces: readonly Piece[]): Promise<NextToken[]> {
    const starts = Int32Array.of(0, ...pieces.map(({ ids }) => ids.length));
    for (let s = 0; s < pieces.length; s++) starts[s + 1]! += starts[s]!;
    const asked = pieces.flatMap(({ asks }, s) => (asks ? [starts[s + 1]! - 1] : []));
    const { argmax, logits } = await this.#runner.step({
      ids: Int32Array.from(pieces.flatMap(({ ids }) => ids)),
      starts,
      past: Int32Array.from(pieces, ({ text }) => this.#past[text]!),
      pages: pieces.map(({ text }) => this.#pages[text]!),
      logitRows: Int32Array.from(asked),
      want: this.#want,
    });
    for (const { text, ids } of pieces) this.#past[text]! += ids.length;
    const V = this.#runner.vocabSize;
    return asked.map((_, i) => (argmax ? { id: argmax[i]! } : { logits: logits!.subarray(i * V, (i + 1) * V) }));
  }
}
