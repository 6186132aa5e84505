/** How well a model expects a text. */
import { DecoderRunner } from '../decoder/decoder-runner';
import type { ModelInMemory } from './model-in-memory';

/** Tokens that go through the model at once. */
const PIECE_TOKENS = 512;

/** Gives the mean loss of predicting each token from those before it, in nats; at least two tokens. */
export async function meanLoss({ model, users }: ModelInMemory, ids: readonly number[]): Promise<number> {
  const T = ids.length - 1;
  const pageTokens = 16;
  using runner = new DecoderRunner(model, { pages: Math.ceil(T / pageTokens), pageTokens });
  users.add(runner);
  try {
    const pages = [Int32Array.from({ length: runner.pages }, (_, i) => i)];
    let sum = 0;
    for (let past = 0; past < T; past += PIECE_TOKENS) {
      const rows = Math.min(PIECE_TOKENS, T - past);
      const losses = await runner.losses(
        {
          ids: Int32Array.from(ids.slice(past, past + rows)),
          starts: Int32Array.of(0, rows),
          past: Int32Array.of(past),
          pages,
          logitRows: new Int32Array(),
          want: 'logits',
        },
        Int32Array.from(ids.slice(past + 1, past + rows + 1)),
      );
      sum += losses.reduce((a, b) => a + b, 0);
    }
    return sum / T;
  } finally {
    users.delete(runner);
  }
}
