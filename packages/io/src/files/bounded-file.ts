/**
 * Reading of files that nobody vouches for: regular files only, exact byte counts, sizes checked before allocation.
 * Not a general file layer: what is written goes through `AtomicFile`.
 */
import fs from 'node:fs';
import { DsError } from '@ds/core-native';

/** Linux reads at most 2^31 - 4096 bytes a call; 1 GiB keeps below that on every platform. */
const MAX_BYTES_PER_READ = 1 << 30;

/** Open regular file: descriptor and the size it had when opened. */
export interface OpenedFile {
  readonly fd: number;
  readonly bytes: number;
}

/** Returns the system's error code (`ENOENT`, …) of a failed file operation, or undefined for any other value. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'Check the path; nothing exists there.',
  EACCES: 'Give this user permission to the file and its folders.',
  EPERM: 'Give this user permission to the file and its folders.',
  EISDIR: 'Name a file, not a folder.',
  ENOTDIR: 'A part of the path is a file, not a folder.',
  EMFILE: 'Raise the limit of open files (ulimit -n) or close other files first.',
  ENOSPC: 'Free space on that disk or choose another folder.',
  EDQUOT: 'The disk quota of this user is used up; free space or choose another folder.',
  EROFS: 'The file system is mounted read-only; choose another folder.',
  EIO: 'The disk reports a hardware error; check it before trusting its contents.',
};

/** Turns a failed file operation into the `DsError` (code IO) that names the file, what was tried and the remedy. */
export function ioError(op: string, what: string, error: unknown): DsError {
  const code = errnoOf(error);
  const message = error instanceof Error ? error.message : String(error);
  return new DsError({
    code: 'IO',
    op,
    expected: what,
    actual: message,
    hint: (code && HINTS[code]) ?? 'See the message of the operating system.',
    cause: error,
  });
}

/**
 * Opens a regular file for reading.
 *
 * O_NONBLOCK, so that a named pipe put in a model folder is refused instead of blocking the process for ever.
 * @throws DsError IO if it cannot be opened; FORMAT if it is not a regular file.
 */
export function openRegularFile(op: string, path: string): OpenedFile {
  let fd: number;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    throw ioError(op, `to open ${path}`, error);
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) {
      throw new DsError({
        code: 'FORMAT',
        op,
        expected: `a regular file at ${path}`,
        actual: stat.isDirectory() ? 'a folder' : 'a device, pipe or socket',
        hint: 'Name the file itself.',
      });
    }
    return { fd, bytes: stat.size };
  } catch (error) {
    fs.closeSync(fd);
    throw error instanceof DsError ? error : ioError(op, `to inspect ${path}`, error);
  }
}

/**
 * Fills `target` with the bytes from `position` on.
 *
 * @throws DsError IO when the file ends before: it was cut or replaced in place since it was opened.
 */
export function readExactly(op: string, path: string, fd: number, target: Uint8Array, position: number): void {
  let done = 0;
  while (done < target.byteLength) {
    let count: number;
    try {
      count = fs.readSync(fd, target, done, Math.min(target.byteLength - done, MAX_BYTES_PER_READ), position + done);
    } catch (error) {
      throw ioError(op, `to read ${target.byteLength} bytes at offset ${position} of ${path}`, error);
    }
    if (count === 0) {
      throw new DsError({
        code: 'IO',
        op,
        expected: `${target.byteLength} bytes at offset ${position} of ${path}`,
        actual: `the end of the file after ${done}`,
        hint: 'The file shrank after it was opened. Restore it and open it again.',
      });
    }
    done += count;
  }
}

/** Allocates `bytes` zeros. @throws DsError OOM instead of a bare RangeError. */
export function allocateBytes(op: string, bytes: number, what: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new DsError({
      code: 'OOM',
      op,
      expected: `${bytes} bytes of memory for ${what}`,
      actual: 'a failed allocation',
      hint: 'Read the tensor in parts with readInto, or use a machine with more memory.',
      cause: error,
    });
  }
}

/**
 * Reads a whole file of at most `maxBytes` bytes; the size is checked before the memory is taken.
 *
 * @throws DsError IO if it cannot be read; FORMAT if it is larger or not a regular file.
 */
export function readBoundedFile(op: string, path: string, maxBytes: number): Uint8Array<ArrayBuffer> {
  const { fd, bytes } = openRegularFile(op, path);
  try {
    if (bytes > maxBytes) {
      throw new DsError({
        code: 'FORMAT',
        op,
        expected: `at most ${maxBytes} bytes in ${path}`,
        actual: `${bytes}`,
        hint: 'The file is larger than any file of this kind should be; check that it is the right one.',
      });
    }
    const target = allocateBytes(op, bytes, path);
    readExactly(op, path, fd, target, 0);
    return target;
  } finally {
    fs.closeSync(fd);
  }
}
