/**
 * Guesses of the tokens to come, which one step of the model verifies at once.
 *
 * The model draws its own token for each place, with the number of that place, as it would without guesses; a guess counts
 * if it is that token, and the first wrong one ends them. So an answer is the same token for token with and without
 * guesses, greedy or drawn, however many of them a busy step had room for. For a guess made without a draw this is
 * rejection sampling itself: it is accepted with its probability p, and what comes in place of a rejected one follows p
 * without it. Drafts that are drawn would be accepted a little more often, and would make the answer depend on the load.
 * Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", sec. 2.3, with q = 1.
 */

/** A text whose next tokens are to be guessed. */
export interface DraftRequest {
  /** Names the text among all of an engine. */
  readonly id: string;
  /** All of its tokens so far. */
  readonly tokens: readonly number[];
  /** Guesses at most. */
  readonly most: number;
}

export interface Drafter extends Disposable {
  /** Guesses for each text; fewer than asked, or none, where it knows no better. */
  propose(requests: readonly DraftRequest[]): Promise<readonly (readonly number[])[]> | readonly (readonly number[])[];
  /** A text is done: what is kept for it can go. */
  forget(id: string): void;
}

export interface NgramDrafterOptions {
  /** Tokens at the end of the text to look for earlier in it; the longest ones first. Default 4. */
  longest?: number;
  /** Default 2: one equal token says little. */
  shortest?: number;
}

/**
 * Guesses that a text goes on as it did when its last tokens occurred before: free, and right often where answers quote
 * their prompt (summaries, edits, code). Source: Saxena 2023, "Prompt Lookup Decoding".
 */
export class NgramDrafter implements Drafter {
  readonly #longest: number;
  readonly #shortest: number;

  constructor({ longest = 4, shortest = 2 }: NgramDrafterOptions = {}) {
    this.#longest = longest;
    this.#shortest = shortest;
  }

  propose(requests: readonly DraftRequest[]): number[][] {
    return requests.map(({ tokens, most }) => {
      const end = this.#earlierEnd(tokens);
      return end === undefined ? [] : tokens.slice(end, end + most);
    });
  }

  forget(): void {}

  [Symbol.dispose](): void {}

  /** Behind the latest of the longest earlier occurrences of the text's last tokens. */
  #earlierEnd(tokens: readonly number[]): number | undefined {
    const last = tokens.length - 1;
    let best: number | undefined;
    let bestLength = this.#shortest - 1;
    for (let end = last; end > bestLength; end--) {
      let length = 0;
      while (length < this.#longest && tokens[end - 1 - length] === tokens[last - length]) length++;
      if (length <= bestLength) continue;
      best = end;
      bestLength = length;
      if (length === this.#longest) break;
    }
    return best;
  }
}
