/** Ctrl-C, and SIGTERM: the first one asks, the second one tells. */

/**
 * One Ctrl-C may arrive more than once: from the terminal, which sends it to every process, and from npm and other parents,
 * which pass it on.
 */
const sameMs = 500;

export class Interrupt implements Disposable {
  readonly #abort = new AbortController();
  readonly #ask: () => void;
  #askedAtMs: number | undefined;
  readonly #onSignal = () => {
    if (this.#askedAtMs === undefined) {
      this.#askedAtMs = Date.now();
      this.#ask();
    } else if (Date.now() - this.#askedAtMs > sameMs) this.#abort.abort();
  };

  /** @param ask what the first one does */
  constructor(ask: () => void) {
    this.#ask = ask;
    process.on('SIGINT', this.#onSignal);
    process.on('SIGTERM', this.#onSignal);
  }

  /** Aborted by the second one. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#onSignal);
    process.off('SIGTERM', this.#onSignal);
  }
}
