/**
 * Documents from text files and folders, in an order that depends on their names only: not on the file system, its
 * clock, or the machine. JSON-lines files give one document a line.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { basename, join } from 'node:path';
import { DsError } from '@ds/core-native';
import { errnoOf, ioError, openRegularFile, readBoundedFile } from '../files/bounded-file';
import { readJsonLines } from './json-lines';

const OP = 'readDocuments';

export interface DocumentFilesOptions {
  /** Files and folders. A file named here is read whatever its extension; links below folders are never followed. */
  readonly paths: readonly string[];
  /** Ends of file names to take from folders. Default `.txt`, `.md`, `.jsonl`. */
  readonly extensions?: readonly string[];
  /** Larger files in folders are left out; default 1 MB. JSON-lines files are streamed and may be of any size. */
  readonly maxFileBytes?: number;
  /** Stop before the document that would exceed this many bytes of text. Default: no limit. */
  readonly maxTotalBytes?: number;
}

/** One text. */
export interface Document {
  /** File, with the line for JSON lines. */
  readonly name: string;
  readonly text: string;
  /** UTF-8 bytes of the text. */
  readonly bytes: number;
  /** SHA-256 of the text, in hexadecimal. */
  readonly sha256: string;
}

/** What was read and what was left out, counted while reading. */
export interface DocumentStats {
  files: number;
  documents: number;
  bytes: number;
  /** Texts that had come before. */
  duplicates: number;
  /** White space only. */
  empty: number;
  /** Files above `maxFileBytes`. */
  tooLarge: number;
  /** Files that are not UTF-8. */
  notUtf8: number;
  /** Whether `maxTotalBytes` ended the reading. */
  cutOff: boolean;
}

const DEFAULT_EXTENSIONS = ['.txt', '.md', '.jsonl'];
const DEFAULT_MAX_FILE_BYTES = 1_000_000;

/** Returns counters at zero. */
export function newDocumentStats(): DocumentStats {
  return { files: 0, documents: 0, bytes: 0, duplicates: 0, empty: 0, tooLarge: 0, notUtf8: 0, cutOff: false };
}

const sha256Of = (text: string): string => createHash('sha256').update(text).digest('hex');

/**
 * Reads documents one by one, each text once.
 *
 * Files of a folder come in the order of a hash of their relative names, so that `maxTotalBytes` takes a fair sample and not
 * the letter A.
 * @param stats counters to add to
 * @throws DsError IO for a path that cannot be read; FORMAT for a bad line of a JSON-lines file
 */
export function* readDocuments(options: DocumentFilesOptions, stats = newDocumentStats()): Generator<Document> {
  const seen = new Set<string>();
  const maxTotalBytes = options.maxTotalBytes ?? Number.POSITIVE_INFINITY;
  for (const { name, text } of readTexts(options, stats)) {
    const bytes = Buffer.byteLength(text);
    if (text.trim() === '') {
      stats.empty++;
      continue;
    }
    const sha256 = sha256Of(text);
    if (seen.has(sha256)) {
      stats.duplicates++;
      continue;
    }
    if (stats.bytes + bytes > maxTotalBytes) {
      stats.cutOff = true;
      return;
    }
    seen.add(sha256);
    stats.documents++;
    stats.bytes += bytes;
    yield { name, text, bytes, sha256 };
  }
}

/** Yields every text, duplicates and all. */
function* readTexts(options: DocumentFilesOptions, stats: DocumentStats): Generator<{ name: string; text: string }> {
  const maxFileBytes = options.maxFileBytes ?? DEFAULT_MAX_FILE_BYTES;
  for (const { path, named } of listFiles(options)) {
    if (path.endsWith('.jsonl')) {
      stats.files++;
      yield* readJsonLines(path);
      continue;
    }
    const { fd, bytes } = openRegularFile(OP, path);
    fs.closeSync(fd);
    if (bytes > maxFileBytes && !named) {
      stats.tooLarge++;
      continue;
    }
    const text = decodeUtf8(readBoundedFile(OP, path, Math.max(bytes, maxFileBytes)));
    if (text !== undefined) {
      stats.files++;
      yield { name: path, text };
    } else if (named) {
      const hint = 'Convert the file to UTF-8 first.';
      throw new DsError({ code: 'FORMAT', op: OP, expected: `UTF-8 text in ${path}`, actual: 'other bytes', hint });
    } else {
      stats.notUtf8++;
    }
  }
}

/** Decodes UTF-8, a byte order mark left out; undefined for other bytes. */
function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Lists the files to read, in order; `named` where the user wrote the file's own path. */
function* listFiles(options: DocumentFilesOptions): Generator<{ path: string; named: boolean }> {
  const extensions = options.extensions ?? DEFAULT_EXTENSIONS;
  for (const root of options.paths) {
    let stat: fs.Stats;
    try {
      stat = fs.statSync(root);
    } catch (error) {
      throw ioError(OP, `a file or folder ${root}`, error);
    }
    if (!stat.isDirectory()) {
      yield { path: root, named: true };
      continue;
    }
    const relative = walk(root, (name) => extensions.some((extension) => name.endsWith(extension)));
    const ordered = relative.map((name) => ({ name, key: sha256Of(name) }));
    ordered.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
    for (const { name } of ordered) yield { path: join(root, name), named: false };
  }
}

/** Relative names, with `/`, of the matching regular files below a folder; hidden entries and links are left out. */
function walk(root: string, matches: (name: string) => boolean): string[] {
  const found: string[] = [];
  const folders = [''];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    let entries: fs.Dirent[];
    try {
      entries = fs.readdirSync(join(root, folder), { withFileTypes: true });
    } catch (error) {
      // A folder may vanish or be closed to us while we walk; the root itself must be readable.
      if (folder !== '' && (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EACCES')) continue;
      throw ioError(OP, `to list ${join(root, folder)}`, error);
    }
    for (const entry of entries) {
      const name = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.name.startsWith('.')) continue;
      if (entry.isDirectory()) folders.push(name);
      else if (entry.isFile() && matches(basename(name))) found.push(name);
    }
  }
  return found;
}
