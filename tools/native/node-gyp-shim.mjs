#!/usr/bin/env node
/**
 * What prebuildify starts in place of node-gyp: `<shim> rebuild --target=… --arch=…` in a scratch folder, where it then
 * takes `build/Release/*.node` away. Ours is a CMake build, so this brings the ordinary build up to date and leaves a
 * copy there: the binary that ships is the one that was tested.
 */
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { buildNative } from './build.mjs';

const arch = process.argv.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length);
if (arch && arch !== process.arch) {
  console.error(`prebuild: cannot build for ${arch} on ${process.arch}; run it on such a machine`);
  process.exit(1);
}
const addon = await buildNative();
const release = path.join(process.cwd(), 'build/Release');
mkdirSync(release, { recursive: true });
copyFileSync(addon, path.join(release, path.basename(addon)));
