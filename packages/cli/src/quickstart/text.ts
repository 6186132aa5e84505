/** The text of the quickstart: what every machine has after `npm install`, type declarations and Markdown of node_modules. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError } from '@ds/core-native';
import { dataFolder } from '../train/places';
import { type PreparedText, prepareText } from '../train/prepare-text';

/** Share of the documents that are kept for validation. */
const validationShare = 0.02;
/** Enough for hours of training at this size; more would only take longer to read. */
const maxTotalBytes = 32e6;

/** Finds the nearest node_modules: above the working directory, else above this file. @throws IO */
export function findNodeModules(from: readonly string[] = [process.cwd(), __dirname]): string {
  for (const start of from)
    for (let folder = path.resolve(start); ; folder = path.dirname(folder)) {
      const candidate = path.join(folder, 'node_modules');
      if (fs.existsSync(candidate)) return candidate;
      if (folder === path.dirname(folder)) break;
    }
  throw new DsError({
    code: 'IO',
    op: 'quickstart',
    expected: `a node_modules folder above ${from.join(' or ')}`,
    actual: 'none',
    hint: 'Run npm install first, or train on your own text with `ds train`.',
  });
}

/** Prepares the text below `output`, or finds it prepared. @throws IO */
export function prepareQuickstartText(
  output: string,
  vocabSize: number,
  onStage: (text: string) => void,
): PreparedText {
  return prepareText({
    corpus: { paths: [findNodeModules()], extensions: ['.d.ts', '.md'], validationShare, maxTotalBytes },
    folder: dataFolder(output),
    tokenizer: null,
    vocabSize,
    onStage,
  });
}
