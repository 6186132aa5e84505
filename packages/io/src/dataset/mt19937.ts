/**
 * The random numbers of numpy's legacy `RandomState(seed)`: Mersenne Twister, seeded as in the original C code.
 *
 * Megatron's sample order is defined by it, so that a run can be continued by any program that knows seed and count.
 * Source: Matsumoto and Nishimura 1998; numpy.random.RandomState.
 */
import { DsError } from '@ds/core-native';

const N = 624;
const M = 397;

/** MT19937 with numpy's legacy methods. */
export class RandomState {
  readonly #state = new Uint32Array(N);
  #next = N;

  /** @throws DsError CONFIG unless `seed` is an integer from 0 to 2^32 - 1 */
  constructor(seed: number) {
    if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff) {
      const hint = 'numpy accepts no other seeds either.';
      const expected = 'a seed from 0 to 4294967295';
      throw new DsError({ code: 'CONFIG', op: 'RandomState', expected, actual: `${seed}`, hint });
    }
    const state = this.#state;
    state[0] = seed;
    for (let i = 1; i < N; i++) {
      const previous = state[i - 1]! ^ (state[i - 1]! >>> 30);
      state[i] = Math.imul(1812433253, previous) + i;
    }
  }

  /** Draws 32 uniform bits. */
  uint32(): number {
    if (this.#next === N) this.#generate();
    let y = this.#state[this.#next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Shuffles in place as `RandomState.shuffle`: from the back, each index by masked rejection. */
  shuffle(values: Int32Array): void {
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.#upTo(i);
      const value = values[i]!;
      values[i] = values[j]!;
      values[j] = value;
    }
  }

  /** Draws an integer from 0 to `max`: masks to the fewest bits and draws again while above. */
  #upTo(max: number): number {
    const mask = 0xffffffff >>> Math.clz32(max);
    for (;;) {
      const value = (this.uint32() & mask) >>> 0;
      if (value <= max) return value;
    }
  }

  #generate(): void {
    const state = this.#state;
    for (let i = 0; i < N; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % N]! & 0x7fffffff);
      state[i] = state[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}
