/** How far a long piece of work is: a bar on a terminal, a plain line now and then elsewhere, nothing when quiet. */
import { Presets, SingleBar } from 'cli-progress';
import { createColors, isColorSupported } from 'picocolors';
import { formatSeconds } from './format';

/** Facts that stand behind the bar: loss, tokens/s. */
export type Facts = Readonly<Record<string, string>>;

export interface Progress {
  update(done: number, facts?: Facts): void;
  /** Writes a line without breaking the bar. */
  note(text: string): void;
  /** Ends it; the last state stays on the screen. */
  stop(): void;
}

export interface ProgressOptions {
  readonly title: string;
  readonly total: number;
  /** What is counted: "step". */
  readonly unit: string;
  readonly quiet?: boolean;
  /** Default stderr. */
  readonly stream?: NodeJS.WriteStream;
}

/** Between two plain lines. */
const plainIntervalMs = 5000;

/** Starts to show progress, as the stream allows. */
export function startProgress(options: ProgressOptions): Progress {
  const { quiet = false, stream = process.stderr } = options;
  if (quiet) return silent;
  return stream.isTTY ? new Bar(options, stream) : new Lines(options, stream);
}

const silent: Progress = { update() {}, note() {}, stop() {} };

function join(facts: Facts): string {
  return Object.entries(facts)
    .map(([name, value]) => `${name} ${value}`)
    .join('  ');
}

class Bar implements Progress {
  readonly #bar: SingleBar;
  readonly #stream: NodeJS.WriteStream;
  readonly #title: string;
  #facts: Facts = {};

  constructor({ title, total, unit }: ProgressOptions, stream: NodeJS.WriteStream) {
    const { cyan, dim } = createColors(isColorSupported && stream.isTTY);
    this.#title = title;
    this.#stream = stream;
    const bar = {
      stream,
      clearOnComplete: false,
      hideCursor: true,
      linewrap: false,
      // A note is written over the bar: it must be drawn again though nothing in it has changed.
      forceRedraw: true,
      fps: 8,
      barsize: 24,
      format: `${title} ${cyan('{bar}')} {value}/{total} ${unit}s ${dim('{eta_formatted}')}  {facts}`,
      formatTime: (seconds: number) => formatSeconds(seconds),
    };
    this.#bar = new SingleBar(bar, Presets.shades_classic);
    this.#bar.start(total, 0, { facts: '' });
  }

  update(done: number, facts: Facts = this.#facts): void {
    this.#facts = facts;
    // What does not fit on the line is left out, not wrapped: a wrapped bar cannot be drawn over.
    const room = Math.max(0, (this.#stream.columns ?? 80) - this.#title.length - 52);
    const entries = Object.entries(facts);
    while (entries.length > 0 && join(Object.fromEntries(entries)).length > room) entries.pop();
    this.#bar.update(done, { facts: join(Object.fromEntries(entries)) });
  }

  note(text: string): void {
    // The bar goes back to a saved place when it ends (ESC 7 saves it): after a note that is the next line.
    this.#stream.write(`\r\u001b[K${text}\n\u001b7`);
    this.#bar.render();
  }

  stop(): void {
    this.#bar.stop();
  }
}

class Lines implements Progress {
  readonly #options: ProgressOptions;
  readonly #stream: NodeJS.WriteStream;
  #lastWriteMs = Number.NEGATIVE_INFINITY;
  #last: { done: number; facts: Facts } | undefined;
  #written = -1;

  constructor(options: ProgressOptions, stream: NodeJS.WriteStream) {
    this.#options = options;
    this.#stream = stream;
  }

  update(done: number, facts: Facts = this.#last?.facts ?? {}): void {
    this.#last = { done, facts };
    if (Date.now() - this.#lastWriteMs < plainIntervalMs && done < this.#options.total) return;
    this.#write();
  }

  note(text: string): void {
    this.#stream.write(`${text}\n`);
  }

  stop(): void {
    if (this.#last && this.#last.done !== this.#written) this.#write();
  }

  #write(): void {
    const { title, total, unit } = this.#options;
    const { done, facts } = this.#last!;
    if (done === this.#written) return;
    this.#lastWriteMs = Date.now();
    this.#written = done;
    this.#stream.write(`${title}: ${unit} ${done}/${total}  ${join(facts)}\n`.replace(/ +\n/, '\n'));
  }
}
