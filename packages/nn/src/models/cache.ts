/** Keys and values of the tokens that a batch of sequences has seen, one pair of tensors a layer. */
import { type Device, type DeviceName, DsError, type DType, keep, Tensor } from '@ds/core-native';

export interface KeyValueCacheOptions {
  layers: number;
  heads: number;
  headSize: number;
  batch: number;
  /** Most tokens a sequence may have, padding included. */
  capacity: number;
  device?: DeviceName | Device;
  dtype?: DType;
}

export class KeyValueCache implements Disposable {
  readonly batch: number;
  readonly capacity: number;
  /** Per layer [B, H, S, D]. */
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  /** [B, S] u8: 1 where a token is real. Absent while every token is. */
  mask: Tensor | undefined;
  #length = 0;
  readonly #real: Uint8Array;
  readonly #device: DeviceName | Device;

  constructor(options: KeyValueCacheOptions) {
    const { batch, capacity, heads, headSize, layers, device = 'cpu', dtype = 'f32' } = options;
    this.batch = batch;
    this.capacity = capacity;
    this.#device = device;
    this.#real = new Uint8Array(batch * capacity).fill(1);
    const make = () => keep(Tensor.empty([batch, heads, capacity, headSize], { device, dtype }));
    this.keys = Array.from({ length: layers }, make);
    this.values = Array.from({ length: layers }, make);
  }

  /** Tokens a sequence has so far, padding included. */
  get length(): number {
    return this.#length;
  }

  /**
   * Makes room for `T` more tokens and gives the number of those before them.
   * @param mask [B, T] of 0 and 1; absent: all new tokens are real
   * @throws SHAPE beyond the capacity
   */
  append(T: number, mask?: ArrayLike<number>): number {
    const past = this.#length;
    if (past + T > this.capacity)
      throw new DsError({
        code: 'SHAPE',
        op: 'key-value cache',
        expected: `at most ${this.capacity} tokens a sequence`,
        actual: `${past} and ${T} more`,
        hint: 'make the cache larger (prompt length plus maxNewTokens)',
      });
    if (mask) {
      for (let b = 0; b < this.batch; b++)
        for (let t = 0; t < T; t++) this.#real[b * this.capacity + past + t] = mask[b * T + t]!;
      this.mask ??= keep(Tensor.empty([this.batch, this.capacity], { dtype: 'u8', device: this.#device }));
      this.mask.writeBytes(this.#real);
    }
    this.#length = past + T;
    return past;
  }

  [Symbol.dispose](): void {
    for (const tensor of [...this.keys, ...this.values]) tensor.dispose();
    this.mask?.dispose();
    this.mask = undefined;
  }
}
