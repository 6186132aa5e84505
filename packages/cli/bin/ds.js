#!/usr/bin/env node
// The command `ds`. Everything is in src/main.ts; a checkout that was not built yet says so instead of a stack trace.
const { existsSync } = require('node:fs');
const path = require('node:path');

if (existsSync(path.join(__dirname, '../dist/main.js'))) {
  require('../dist/main.js').main(process.argv.slice(2));
} else {
  const error = { code: 'UNSUPPORTED', message: 'ds: this checkout is not built', hint: 'npm ci && npm run build' };
  if (process.argv.includes('--json')) console.log(JSON.stringify({ error }));
  console.error(`${error.message}. Type: ${error.hint}`);
  process.exitCode = 1;
}
