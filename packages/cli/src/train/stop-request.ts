/**
 * How a rank is asked to stop in order: by SIGTERM, or by a file named `stop` in the run's folder (as BLOOM's training
 * had; also the way on a cluster). Ctrl-C in a terminal reaches all processes at once; ranks leave it to the command.
 */
import fs = require('node:fs');

import { stopFile } from './places';

export class StopRequest implements Disposable {
  readonly file: string;
  #asked = false;
  readonly #onTerminate = () => {
    this.#asked = true;
  };
  readonly #onInterrupt = () => {};

  constructor(output: string) {
    this.file = stopFile(output);
    process.on('SIGTERM', this.#onTerminate);
    process.on('SIGINT', this.#onInterrupt);
  }

  get asked(): boolean {
    return this.#asked || fs.existsSync(this.file);
  }

  [Symbol.dispose](): void {
    process.off('SIGTERM', this.#onTerminate);
    process.off('SIGINT', this.#onInterrupt);
  }
}
