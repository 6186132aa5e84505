/** Ends a text before the first of some stop texts, and holds back what may be the start of one. */
export class StopTexts {
  readonly #stops: readonly string[];
  #held = '';
  #stopped = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Whether a stop text has come. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes more text; returns what is certain to stand before any stop text. */
  push(text: string): string {
    if (this.#stopped) return '';
    this.#held += text;
    const places = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((place) => place >= 0);
    if (places.length > 0) {
      this.#stopped = true;
      return this.#held.slice(0, Math.min(...places));
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

  /** Characters at the end that a stop text begins with. */
  #openLength(): number {
    let longest = 0;
    for (const stop of this.#stops)
      for (let n = Math.min(stop.length - 1, this.#held.length); n > longest; n--)
        if (this.#held.endsWith(stop.slice(0, n))) longest = n;
    return longest;
  }
}
