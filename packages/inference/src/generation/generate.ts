/** The loop of generation: read the prompts, then choose, yield and take one token of each text after the other. */
import { throwIfAborted } from '../abort';
import type { ModelInMemory } from '../model/model-in-memory';
import { Decoder, type NextTokens } from './decoder';
import type { ResolvedGenerateOptions } from './generate-options';
import { type GeneratedToken, Sequence } from './sequence';

/** Seconds that were spent computing; those of whoever takes the tokens do not count. */
export interface GenerationTimes {
  /** Until the first token. */
  promptSeconds: number;
  /** In all. */
  seconds: number;
}

/** Yields the next token of each text; undefined for one that has ended. Memory is taken at the first and freed at the end. */
export async function* generate(
  memory: ModelInMemory,
  sequences: readonly Sequence[],
  options: ResolvedGenerateOptions,
  times: GenerationTimes,
): AsyncGenerator<readonly (GeneratedToken | undefined)[], void, undefined> {
  const abort = () => throwIfAborted('generate', options.signal);
  abort();
  let startMs = performance.now();
  const stopClock = () => {
    times.seconds += (performance.now() - startMs) / 1000;
  };
  using decoder = new Decoder(memory, {
    prompts: sequences.map(({ promptIds }) => promptIds),
    maxNewTokens: options.maxNewTokens,
    needsLogits: Sequence.needsLogits(options),
  });
  let next = await decoder.readPrompts(abort);
  for (;;) {
    abort();
    const tokens = sequences.map((sequence, i) =>
      sequence.finishReason ? undefined : sequence.append(chosen(sequence, next, i, sequences.length)),
    );
    stopClock();
    if (sequences.every(({ ids }) => ids.length <= 1)) times.promptSeconds = times.seconds;
    yield tokens;
    if (sequences.every(({ finishReason }) => finishReason)) return;
    abort();
    startMs = performance.now();
    // A text that has ended goes on unheard: what the others get does not depend on it.
    next = await decoder.next(sequences.map(({ ids }) => ids.at(-1)!));
  }
}

function chosen(sequence: Sequence, next: NextTokens, i: number, batch: number): number {
  if (next.largest) return next.largest[i]!;
  const V = next.logits.length / batch;
  return sequence.choose(next.logits.subarray(i * V, (i + 1) * V));
}
