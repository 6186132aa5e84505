/** `npm run prebuilds`: puts this platform's stripped binary where `npm pack` and node-gyp-build look for it. */
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { root, shown } from '../programs.mjs';

const packageFolder = path.join(root, 'packages/core-native');
const prebuildify = promisify(createRequire(path.join(packageFolder, 'package.json'))('prebuildify'));

const scratch = path.join(packageFolder, 'build-prebuild');
const target = path.join(packageFolder, 'prebuilds', `${process.platform}-${process.arch}`);
rmSync(target, { recursive: true, force: true });
mkdirSync(scratch, { recursive: true });
await prebuildify({
  napi: true,
  targets: [process.versions.node],
  strip: true,
  tagLibc: process.platform === 'linux',
  name: 'ds-core-native',
  cwd: scratch,
  out: packageFolder,
  nodeGyp: fileURLToPath(new URL('node-gyp-shim.mjs', import.meta.url)),
  quiet: true,
});
for (const file of readdirSync(target)) {
  const megabytes = (statSync(path.join(target, file)).size / 2 ** 20).toFixed(1);
  console.log(`prebuild: ${shown(path.join(target, file))}, ${megabytes} MB`);
}
