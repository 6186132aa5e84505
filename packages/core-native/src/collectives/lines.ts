/** Cuts a stream of bytes into lines of text. */
import { StringDecoder } from 'node:string_decoder';

/** A line longer than this is cut: memory stays bounded whatever a program prints. */
const MAX_LINE = 1 << 20;

export class LineCutter {
  readonly #decoder = new StringDecoder('utf8');
  readonly #onLine: (line: string) => void;
  #rest = '';

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  write(bytes: Buffer): void {
    const lines = (this.#rest + this.#decoder.write(bytes)).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) this.#onLine(line.endsWith('\r') ? line.slice(0, -1) : line);
    if (this.#rest.length < MAX_LINE) return;
    this.#onLine(this.#rest);
    this.#rest = '';
  }

  /** Gives what came after the last newline. */
  end(): void {
    const rest = this.#rest + this.#decoder.end();
    this.#rest = '';
    if (rest) this.#onLine(rest);
  }
}
