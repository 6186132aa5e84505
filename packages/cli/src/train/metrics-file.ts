/** The metrics.jsonl of a run: one record a line, written as they come. */
import fs = require('node:fs');
import path = require('node:path');

import { metricsFile } from '../report/read-run';
import type { RunRecord } from './records';

export class MetricsFile implements Disposable {
  readonly path: string;
  #fd: number | undefined;

  /** Opens FOLDER/metrics.jsonl: to go on with it, or anew. */
  constructor(folder: string, mode: 'continue' | 'anew') {
    fs.mkdirSync(folder, { recursive: true });
    this.path = path.join(folder, metricsFile);
    if (mode === 'continue') cutUnfinishedLine(this.path);
    this.#fd = fs.openSync(this.path, mode === 'continue' ? 'a' : 'w');
  }

  add(record: RunRecord): void {
    if (this.#fd !== undefined) fs.writeSync(this.#fd, `${JSON.stringify(record)}\n`);
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** A run that was killed may have left half a line; the next record must not be written behind it. */
function cutUnfinishedLine(file: string): void {
  if (!fs.existsSync(file)) return;
  const content = fs.readFileSync(file);
  const end = content.lastIndexOf(0x0a) + 1;
  if (end < content.length) fs.truncateSync(file, end);
}
