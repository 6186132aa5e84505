/** The loop of generation: read the prompts, then choose, yield and take one token of each text after the other. */
import { throwIfAborted } from '../abort';
import type { ModelInMemory } from '../model/model-in-memory';
import { Decoder, type NextToken } from './decoder';
import type { ResolvedGenerateOptions } from './generate-options';
import type { GeneratedToken, Sequence } from './sequence';

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
    texts: sequences,
    want: sequences.some((sequence) => sequence.needsLogits) ? 'logits' : 'argmax',
  });
  let going = sequences.map((sequence, text) => ({ sequence, text }));
  let next = await decoder.readPrompts(abort);
  for (;;) {
    abort();
    const tokens: (GeneratedToken | undefined)[] = sequences.map(() => undefined);
    for (const [i, { sequence, text }] of going.entries()) tokens[text] = sequence.append(chosen(sequence, next[i]!));
    stopClock();
    if (sequences.every(({ ids }) => ids.length <= 1)) times.promptSeconds = times.seconds;
    yield tokens;
    going = going.filter(({ sequence }) => !sequence.finishReason);
    if (going.length === 0) return;
    abort();
    startMs = performance.now();
    next = await decoder.next(going.map(({ sequence, text }) => ({ text, id: sequence.ids.at(-1)! })));
  }
}

function chosen(sequence: Sequence, next: NextToken): number {
  return next.logits ? sequence.choose(next.logits) : next.id;
}
