/** Several streams as one, each value as soon as it is there. */

/** Leaving the loop ends all of them. */
export async function* merged<T>(streams: readonly AsyncIterable<T>[]): AsyncGenerator<readonly [number, T], void> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  const next = (i: number) => iterators[i]!.next().then((result) => ({ i, result }));
  const pending = new Map(iterators.map((_, i) => [i, next(i)]));
  try {
    while (pending.size > 0) {
      const { i, result } = await Promise.race(pending.values());
      if (result.done) pending.delete(i);
      else {
        pending.set(i, next(i));
        yield [i, result.value];
      }
    }
  } finally {
    // Whoever is still waiting for a value hears of the end by its signal; what it throws then is of no interest.
    for (const promise of pending.values()) promise.catch(() => {});
    for (const i of pending.keys()) void iterators[i]!.return?.()?.catch(() => {});
  }
}
