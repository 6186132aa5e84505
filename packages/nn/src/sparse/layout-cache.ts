/** The compiled layouts of one pattern, by the length of the sequence. */
import { BlockLayout } from '@ds/core-native';
import { sparseLayout } from './sparse-layout';
import { type ResolvedSparsity, resolveSparsity, type SparsityConfig } from './sparsity-config';

/** Builds the layout of each length once and holds it, with what devices have of it, until it is disposed. */
export class LayoutCache implements Disposable {
  readonly config: ResolvedSparsity;
  readonly #heads: number;
  readonly #layouts = new Map<number, BlockLayout>();

  /** @throws CONFIG for a pattern that cannot be */
  constructor(config: SparsityConfig, heads: number) {
    this.config = resolveSparsity(config);
    this.#heads = heads;
  }

  /** Gives the layout for sequences of T tokens. @throws SHAPE when the pattern does not fit the length */
  of(sequenceLength: number): BlockLayout {
    let layout = this.#layouts.get(sequenceLength);
    if (!layout) {
      layout = new BlockLayout(sparseLayout(this.config, { heads: this.#heads, sequenceLength }));
      this.#layouts.set(sequenceLength, layout);
    }
    return layout;
  }

  [Symbol.dispose](): void {
    for (const layout of this.#layouts.values()) layout[Symbol.dispose]();
    this.#layouts.clear();
  }
}
