/** `npm run lint`: runs every check, also after one has failed, so that one run shows everything. */
import path from 'node:path';
import { root, run } from '../programs.mjs';

const tools = path.join(root, 'tools/lint');
const checks = {
  'biome (lint and format)': [path.join(root, 'node_modules/@biomejs/biome/bin/biome'), 'check', '.'],
  layers: [path.join(tools, 'layers.mjs')],
  'clang-format': [path.join(tools, 'clang-format.mjs')],
  'lock file': [path.join(tools, 'lockfile.mjs')],
};

const failed = [];
for (const [name, args] of Object.entries(checks)) if ((await run(process.execPath, args)) !== 0) failed.push(name);
if (failed.length > 0) console.error(`lint: failed: ${failed.join(', ')}`);
process.exitCode = failed.length > 0 ? 1 : 0;
