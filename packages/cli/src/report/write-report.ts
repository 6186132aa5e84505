/** Writes the report of a run beside its metrics. */
import fs = require('node:fs');
import path = require('node:path');

import { renderPage } from './page';
import { readRun } from './read-run';

export const reportFile = 'report.html';

/** Writes RUN/report.html, or another file. @returns its path @throws IO, FORMAT */
export function writeReport(folder: string, file = path.join(folder, reportFile)): string {
  const page = renderPage(readRun(folder));
  fs.writeFileSync(`${file}.tmp`, page);
  fs.renameSync(`${file}.tmp`, file);
  return file;
}
