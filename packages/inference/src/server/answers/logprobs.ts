/** Probabilities of tokens in the two shapes that clients know. */
import type { ServedModel, ServedToken } from '../served-model';

export interface ChatLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
  readonly top_logprobs: readonly Omit<ChatLogprob, 'top_logprobs'>[];
}

/** JSON has no infinity; this is what OpenAI gives for "never". */
const NEVER = -9999;

/** Of a chat's token; `bytes` is what half a character is told by. */
export function chatLogprob(model: ServedModel, { id, logprob = NEVER, top = [] }: ServedToken): ChatLogprob {
  return { ...named(model, id, logprob), top_logprobs: top.map((likely) => named(model, likely.id, likely.logprob)) };
}

function named(model: ServedModel, id: number, logprob: number): Omit<ChatLogprob, 'top_logprobs'> {
  const bytes = model.tokenBytes(id);
  return { token: spelled(bytes), logprob: finite(logprob), bytes: Array.from(bytes) };
}

/** Probabilities of a completion, all tokens in four lists of one length. */
export class CompletionLogprobs {
  readonly tokens: string[] = [];
  readonly token_logprobs: (number | null)[] = [];
  readonly top_logprobs: (Record<string, number> | null)[] = [];
  readonly text_offset: number[] = [];

  /** @param offset where the token's text begins in the whole answer */
  add(model: ServedModel, { id, logprob, top }: ServedToken, offset: number): void {
    this.tokens.push(spelled(model.tokenBytes(id)));
    // The first token of a prompt follows from nothing.
    this.token_logprobs.push(logprob === undefined ? null : finite(logprob));
    const likely = (top ?? []).map((each) => [spelled(model.tokenBytes(each.id)), finite(each.logprob)] as const);
    this.top_logprobs.push(logprob === undefined ? null : Object.fromEntries(likely));
    this.text_offset.push(offset);
  }
}

function finite(logprob: number): number {
  return Math.max(logprob, NEVER);
}

/** Half a character becomes U+FFFD. */
function spelled(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}
