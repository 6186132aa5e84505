/**
 * Names of files that come from a model folder (an index, a config) must stay in it: a name like `../../.ssh/id_rsa`
 * or a link out of the folder would make a loader read, or an export overwrite, whatever the author of the folder likes.
 */
import fs from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { DsError } from '@ds/core-native';
import { errnoOf, ioError } from '../files/bounded-file';
import { shorten } from '../json/strict-json';

/** Says why a file name may not be used inside a model folder, or nothing if it may. */
export function fileNameProblem(name: string): string | undefined {
  if (name === '' || name === '.' || name === '..') return 'not a file name';
  if (/[/\\]/.test(name)) return 'a path, not a file name';
  if (/^[A-Za-z]:/.test(name)) return 'a drive, not a file name';
  if (name.includes('\0') || /\p{Cs}/u.test(name)) return 'not text that a file system can hold';
  if (Buffer.byteLength(name) > 255) return 'longer than 255 bytes';
  return undefined;
}

/**
 * Returns the real path of a file of the folder, or undefined if there is none.
 *
 * Links are followed only to places inside the folder, or inside `blobs` where the folder is a snapshot of the Hugging
 * Face cache (`models--x/snapshots/REVISION/f` links to `models--x/blobs/HASH`).
 * @throws DsError FORMAT if the name or the link leaves the folder; IO
 */
export function findInside(op: string, folder: string, name: string): string | undefined {
  const problem = fileNameProblem(name);
  if (problem) {
    const hint = 'All files of a model lie in its folder itself; correct the name.';
    throw new DsError({
      code: 'FORMAT',
      op,
      expected: `the name of a file in ${folder}`,
      actual: `${shorten(name)}, ${problem}`,
      hint,
    });
  }
  let realFolder: string;
  try {
    realFolder = fs.realpathSync(folder);
  } catch (error) {
    throw ioError(op, `to find the folder ${folder}`, error);
  }
  let real: string;
  try {
    real = fs.realpathSync(join(realFolder, name));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw ioError(op, `to find ${join(folder, name)}`, error);
  }
  const snapshots = dirname(realFolder);
  const roots = [realFolder];
  if (basename(snapshots) === 'snapshots') roots.push(join(dirname(snapshots), 'blobs'));
  if (roots.some((root) => real.startsWith(root + sep))) return real;
  throw new DsError({
    code: 'FORMAT',
    op,
    expected: `${join(folder, name)} to lie in its folder`,
    actual: 'a link that leads out of it',
    hint: 'Copy the file into the folder instead of linking it.',
  });
}
