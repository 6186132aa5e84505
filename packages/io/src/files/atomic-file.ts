/**
 * A file that appears whole or not at all: written under a temporary name in the same folder, flushed to the disk,
 * then renamed over the target. Readers see the old file or the new one, also after a crash or a full disk.
 * Promised on local POSIX file systems; network file systems may reorder the rename.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DsError } from '@ds/core-native';
import { errnoOf, ioError } from './bounded-file';

const MAX_BYTES_PER_WRITE = 1 << 30;

/** Flushes a folder's entries, without which a rename may be lost on power failure. */
export function syncFolder(op: string, folder: string): void {
  try {
    const fd = fs.openSync(folder, 'r');
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    // Windows cannot open folders; its renames are journalled by the file system.
    if (process.platform !== 'win32') throw ioError(op, `to flush the folder ${folder}`, error);
  }
}

/** Refuses at once what cannot fit, so that an hour's export does not end in a full disk. */
function requireSpace(op: string, path: string, bytes: number): void {
  let free: number;
  try {
    const stat = fs.statfsSync(dirname(path));
    free = stat.bavail * stat.bsize;
  } catch (error) {
    throw ioError(op, `to see the free space of ${dirname(path)}`, error);
  }
  if (free >= bytes) return;
  throw new DsError({
    code: 'IO',
    op,
    expected: `${bytes} free bytes in ${dirname(path)} for ${basename(path)}`,
    actual: `${free}`,
    hint: 'Free space on that disk or choose another folder; nothing was written.',
  });
}

/** One file being written. Dispose without `commit` removes every trace of it. */
export class AtomicFile {
  readonly path: string;
  readonly #op: string;
  readonly #temporary: string;
  #fd: number | undefined;
  #appended = 0;

  private constructor(op: string, path: string, temporary: string, fd: number) {
    this.path = path;
    this.#op = op;
    this.#temporary = temporary;
    this.#fd = fd;
  }

  /**
   * Creates the temporary file beside `path`.
   *
   * @param op name of the calling operation, for error messages
   * @param expectedBytes size to come; when given, the disk must have that much free
   * @throws DsError IO
   */
  static create(op: string, path: string, expectedBytes = 0): AtomicFile {
    requireSpace(op, path, expectedBytes);
    const temporary = join(dirname(path), `.${basename(path)}.${process.pid}-${randomBytes(6).toString('hex')}.tmp`);
    try {
      return new AtomicFile(op, path, temporary, fs.openSync(temporary, 'wx'));
    } catch (error) {
      throw ioError(op, `to create ${path}`, error);
    }
  }

  /** Writes `bytes` at `position`. On failure the temporary file is removed first. @throws DsError IO */
  write(bytes: Uint8Array, position: number): void {
    const fd = this.#open();
    let done = 0;
    try {
      while (done < bytes.byteLength) {
        const length = Math.min(bytes.byteLength - done, MAX_BYTES_PER_WRITE);
        const count = fs.writeSync(fd, bytes, done, length, position + done);
        if (count === 0) throw new Error('the system wrote nothing');
        done += count;
      }
    } catch (error) {
      throw this.#fail(`to write ${bytes.byteLength} bytes at offset ${position} of ${this.path}`, error);
    }
  }

  /** Writes `bytes` after everything appended so far. @throws DsError IO */
  append(bytes: Uint8Array): void {
    this.write(bytes, this.#appended);
    this.#appended += bytes.byteLength;
  }

  /** Flushes to the disk and renames over the target; from then on the file exists. @throws DsError IO */
  commit(): void {
    const fd = this.#open();
    try {
      fs.fsyncSync(fd);
      this.#fd = undefined;
      fs.closeSync(fd);
      fs.renameSync(this.#temporary, this.path);
    } catch (error) {
      throw this.#fail(`to finish ${this.path}`, error);
    }
    syncFolder(this.#op, dirname(this.path));
  }

  /** Removes the temporary file; the target stays as it was. Harmless after `commit`. */
  abort(): void {
    if (this.#fd === undefined) return;
    const fd = this.#fd;
    this.#fd = undefined;
    try {
      fs.closeSync(fd);
    } finally {
      this.#removeTemporary();
    }
  }

  [Symbol.dispose](): void {
    this.abort();
  }

  #open(): number {
    if (this.#fd !== undefined) return this.#fd;
    throw new DsError({
      code: 'DISPOSED',
      op: this.#op,
      expected: `an open file ${this.path}`,
      actual: 'one that was committed or aborted',
      hint: 'Create a new one.',
    });
  }

  #fail(what: string, error: unknown): DsError {
    if (this.#fd !== undefined) {
      try {
        fs.closeSync(this.#fd);
      } catch {
        // The first error is the one to report; the descriptor is gone either way.
      }
      this.#fd = undefined;
    }
    this.#removeTemporary();
    const failure = ioError(this.#op, what, error);
    if (errnoOf(error) !== 'ENOSPC') return failure;
    return new DsError({
      code: 'IO',
      op: this.#op,
      expected: what,
      actual: 'a full disk (ENOSPC)',
      hint: 'Free space on that disk or choose another folder. Nothing half-written is left; an older file is untouched.',
      cause: error,
    });
  }

  #removeTemporary(): void {
    try {
      fs.unlinkSync(this.#temporary);
    } catch {
      // Already gone, or the disk is failing: the original error says what matters.
    }
  }
}

/** Writes a whole small file atomically. @throws DsError IO */
export function writeFileAtomically(op: string, path: string, content: Uint8Array | string): void {
  const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
  using file = AtomicFile.create(op, path, bytes.byteLength);
  file.append(bytes);
  file.commit();
}
