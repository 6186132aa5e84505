/** Takes the place of tools/typescript-hook.cjs in a bundle, whose TypeScript is compiled already, under its old names. */
const { readFileSync } = require('node:fs');
const Module = require('node:module');

Module._extensions['.ts'] = (module, filename) => module._compile(readFileSync(filename, 'utf8'), filename);
