/**
 * Ends a text at the first of some stop texts, and holds back what may be the start of one.
 *
 * The first is the one that would be complete first if the text came character by character, of several the longest: so
 * what is shown does not depend on the pieces in which the text comes.
 */
export class StopTexts {
  readonly #stops: readonly string[];
  readonly #shown: boolean;
  #held = '';
  #stopped = false;

  /** @param shown whether the stop text itself belongs to the text */
  constructor(stops: readonly string[], shown = false) {
    this.#stops = stops;
    this.#shown = shown;
  }

  /** Whether a stop text has come. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes more text; returns what is certain to be shown. */
  push(text: string): string {
    if (this.#stopped) return '';
    this.#held += text;
    const end = this.#endOfText();
    if (end !== undefined) {
      this.#stopped = true;
      return this.#held.slice(0, end);
    }
    const certain = this.#held.length - this.#openLength();
    const out = this.#held.slice(0, certain);
    this.#held = this.#held.slice(certain);
    return out;
  }

  /** Ends the text: returns what was held back. */
  flush(): string {
    const rest = this.#stopped ? '' : this.#held;
    this.#held = '';
    return rest;
  }

  /** Where the text ends; undefined without a stop text. */
  #endOfText(): number | undefined {
    let first: { start: number; end: number } | undefined;
    for (const stop of this.#stops) {
      const start = this.#held.indexOf(stop);
      const end = start + stop.length;
      if (start >= 0 && (!first || end < first.end || (end === first.end && start < first.start)))
        first = { start, end };
    }
    return first && (this.#shown ? first.end : first.start);
  }

  /** Characters at the end that a stop text begins with. */
  #openLength(): number {
    let longest = 0;
    for (const stop of this.#stops)
      for (let n = Math.min(stop.length - 1, this.#held.length); n > longest; n--)
        if (this.#held.endsWith(stop.slice(0, n))) longest = n;
    return longest;
  }
}
