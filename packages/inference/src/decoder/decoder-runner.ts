/** A decoder with pages for keys and values: takes batches of tokens of many sequences, one step at a time. */
import {
  DsError,
  embedding,
  emptyPages,
  keep,
  nonfiniteIndex,
  type PagedKeyValues,
  type PageTokens,
  softmaxCrossEntropy,
  Tensor,
  withOwner,
} from '@ds/core-native';
import { inActivations } from './activations';
import type { DecoderBatch, DecoderModel } from './decoder-model';
import type { StepBatch, StepResult, StepRunner } from './step-runner';

export interface DecoderRunnerOptions {
  readonly pages: number;
  /** 8, 16 or 32; default 16. It changes no bit of a result on the CPU. */
  readonly pageTokens?: PageTokens;
}

/** Logits that may exist at once while losses are computed. */
const LOGITS_BYTES = 64 * 2 ** 20;

export class DecoderRunner implements StepRunner {
  readonly pageTokens: PageTokens;
  readonly pages: number;
  /** Keys and values of all layers. */
  readonly pageBytes: number;
  readonly vocabSize: number;
  readonly #model: DecoderModel;
  /** One a layer. Undefined once disposed. */
  #keyValues: readonly PagedKeyValues[] | undefined;

  /** @throws OOM */
  constructor(model: DecoderModel, { pages, pageTokens = 16 }: DecoderRunnerOptions) {
    this.#model = model;
    this.pages = pages;
    this.pageTokens = pageTokens;
    this.vocabSize = model.description.vocabSize;
    const elements = model.description.layers.reduce(
      (sum, { attention }) => sum + 2 * attention.keyValueHeads * attention.headSize,
      0,
    );
    this.pageBytes = elements * pageTokens * (model.dtype === 'f32' ? 4 : 2);
    const made: PagedKeyValues[] = [];
    this.#keyValues = made;
    try {
      for (const { attention } of model.description.layers) made.push(this.#makePages(attention));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * @throws CONFIG for a token beyond the context limit, before anything runs; INTERNAL for hidden states that are not finite;
   * DISPOSED; SHAPE, FORMAT from the kernels for ids or pages that are not there
   */
  async step(batch: StepBatch): Promise<StepResult> {
    const { logitRows, want } = batch;
    if (logitRows.length === 0) {
      inActivations(() => {
        this.#hidden(batch);
        return [];
      });
      await this.#model.device.defaultStream.join();
      return {};
    }
    const made = inActivations(() => {
      const last = this.#model.final(this.#rowsOf(this.#hidden(batch), logitRows));
      return [want === 'logits' ? this.#model.logits(last) : this.#model.argmax(last), nonfiniteIndex(last)];
    });
    using scores = made[0];
    using nonfinite = made[1];
    const [values, place] = await Promise.all([scores.read(), nonfinite.item()]);
    if (place >= 0) throw nonfiniteState();
    return want === 'logits' ? { logits: values as Float32Array } : { argmax: values as Int32Array };
  }

  /** Runs a step, and gives the loss of each row against the token [R] that should follow it, in nats. */
  async losses(batch: StepBatch, targets: Int32Array): Promise<Float32Array> {
    const [made] = inActivations(() => {
      const x = this.#model.final(this.#hidden(batch));
      const [R, C] = [x.dim(0), x.dim(1)];
      const wanted = this.#integers(targets);
      const losses = Tensor.empty([R], { device: x.device });
      const rowsAtOnce = Math.max(1, Math.floor(LOGITS_BYTES / (4 * this.vocabSize)));
      for (let from = 0; from < R; from += rowsAtOnce) {
        const rows = Math.min(rowsAtOnce, R - from);
        using logits = keep(this.#model.logits(x.view([rows, C], from * C)));
        softmaxCrossEntropy(logits, wanted.view([rows], from), { losses: losses.view([rows], from) });
      }
      return [losses];
    });
    using losses = made;
    return await losses.read<'f32'>();
  }

  /** Hears of every stage of a step: what enters the first layer, what leaves each, and what meets the head. For inspection. */
  async inspect(batch: StepBatch, onHidden: (x: Tensor) => void): Promise<void> {
    inActivations(() => {
      onHidden(this.#model.final(this.#hidden(batch, onHidden)));
      return [];
    });
    await this.#model.device.defaultStream.join();
  }

  [Symbol.dispose](): void {
    for (const { keys, values } of this.#keyValues ?? []) {
      keys.dispose();
      values.dispose();
    }
    this.#keyValues = undefined;
  }

  #makePages({ keyValueHeads, headSize }: { keyValueHeads: number; headSize: number }): PagedKeyValues {
    const { device, dtype } = this.#model;
    const { pages, pageTokens } = this;
    const made = withOwner('key-value cache', () =>
      emptyPages({ pages, keyValueHeads, size: headSize, pageTokens, format: dtype, device }),
    );
    keep(made.keys);
    keep(made.values);
    return made;
  }

  #hidden(batch: StepBatch, onHidden?: (x: Tensor) => void): Tensor {
    if (!this.#keyValues)
      throw new DsError({
        code: 'DISPOSED',
        op: 'generate',
        expected: 'an engine in use',
        actual: 'one that was disposed',
        hint: 'take all tokens before the engine goes',
      });
    return this.#model.hidden(this.#onDevice(batch), this.#keyValues, onHidden);
  }

  #onDevice({ ids, starts, past, pages }: StepBatch): DecoderBatch {
    const positions = new Int32Array(ids.length);
    let longest = 0;
    let mostRows = 0;
    for (let s = 0; s < past.length; s++) {
      const rows = starts[s + 1]! - starts[s]!;
      for (let i = 0; i < rows; i++) positions[starts[s]! + i] = past[s]! + i;
      longest = Math.max(longest, past[s]! + rows);
      mostRows = Math.max(mostRows, rows);
    }
    const limit = this.#model.contextTokens;
    if (longest > limit)
      throw new DsError({
        code: 'CONFIG',
        op: 'step',
        expected: `at most ${limit} tokens a sequence, the context of the model`,
        actual: String(longest),
      });
    const width = pages.reduce((most, { length }) => Math.max(most, length), 1);
    const table = new Int32Array(pages.length * width);
    pages.forEach((own, s) => {
      table.set(own, s * width);
    });
    return {
      ids: this.#integers(ids),
      positions: this.#integers(positions),
      rows: {
        starts: this.#integers(starts),
        past: this.#integers(past),
        pages: this.#integers(table, [pages.length, width]),
        longest: mostRows,
      },
      longest,
    };
  }

  #integers(values: Int32Array, shape: readonly number[] = [values.length]): Tensor {
    return Tensor.from(values, shape, { dtype: 'i32', device: this.#model.device });
  }

  /** Rows of a matrix by their numbers: what an embedding does. */
  #rowsOf(x: Tensor, rows: Int32Array): Tensor {
    const all = rows.length === x.dim(0) && rows.every((row, i) => row === i);
    return all ? x : embedding(this.#integers(rows), x);
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
