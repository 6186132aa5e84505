/** Finds the benches of a folder. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

/** Every file of the folder exports `benches(context)`: an array of benches, see README.md. */
export async function allBenches(folder, context) {
  const found = [];
  for (const file of readdirSync(path.resolve(folder))
    .filter((name) => name.endsWith('.mjs'))
    .sort()) {
    const { benches } = await import(pathToFileURL(path.resolve(folder, file)).href);
    found.push(...(await benches(context)));
  }
  return found;
}
