/**
 * Lets `require` load TypeScript, for tools that need sources which no build compiles, such as `<op>.cases.ts`:
 * `node --require tools/typescript-hook.cjs …`. Types are dropped, not checked. `@ds/x` is the built package.
 */
const { readFileSync } = require('node:fs');
const Module = require('node:module');
const { transformSync } = require('@swc/core');

// `Module._extensions` is what every loader of this kind hooks into; Node keeps it for them.
Module._extensions['.ts'] = (module, filename) => {
  const { code } = transformSync(readFileSync(filename, 'utf8'), {
    filename,
    swcrc: false,
    sourceMaps: 'inline',
    jsc: { parser: { syntax: 'typescript' }, target: 'es2022' },
    module: { type: 'commonjs' },
  });
  module._compile(code, filename);
};
