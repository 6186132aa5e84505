/** Builds everything, the addon and every package, on any machine that `setup` can make ready. For the other tools. */
import path from 'node:path';
import { root, run } from './programs.mjs';

/** @throws Error when a build fails; it has printed why */
export async function build() {
  const turbo = path.join(root, 'node_modules/.bin/turbo');
  const env = { TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1', TURBO_NO_UPDATE_NOTIFIER: '1' };
  const status = await run(turbo, ['run', 'build', '--output-logs=errors-only', '--log-order=grouped'], { env });
  if (status !== 0) throw new Error('the build failed');
}
