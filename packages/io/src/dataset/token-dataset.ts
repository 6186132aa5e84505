/** What training and evaluation know of data: numbered samples of equal length. */

export interface TokenDataset {
  /** Tokens T that a model sees of a sample. */
  readonly sequenceLength: number;
  /** Samples there are. */
  readonly length: number;
  /**
   * Returns sample `index` as T + 1 ids: the first T are inputs, the last T the labels.
   *
   * The array is the caller's.
   * @throws DsError CONFIG beyond `length`, unless the dataset says that it wraps around; IO, FORMAT
   */
  sample(index: number): Int32Array;
}
