/**
 * `npm run prebuilds`: puts this platform's stripped binary where `npm pack` and node-gyp-build look for it. With
 * DS_CUDA=on, beside it goes the CUDA library, which the addon opens where there is a driver.
 */
import { copyFileSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { root, run, shown } from '../programs.mjs';

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
if (process.env.DS_CUDA === 'on') {
  const built = path.join(packageFolder, 'build/Release/ds-core-cuda.so'); // of the same build as the addon
  const shipped = path.join(target, 'ds-core-cuda.so');
  copyFileSync(built, shipped);
  if ((await run('strip', ['--strip-unneeded', shipped])) !== 0) throw new Error(`${shipped} could not be stripped`);
}
for (const file of readdirSync(target)) {
  const megabytes = (statSync(path.join(target, file)).size / 2 ** 20).toFixed(1);
  console.log(`prebuild: ${shown(path.join(target, file))}, ${megabytes} MB`);
}
