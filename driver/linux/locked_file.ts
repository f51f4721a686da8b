/**
 * A private file under a lock that the kernel drops when its holder ends (flock(2)).
 *
 * The lock shows whether the process that wrote a file still runs, even across PID namespaces and after the PID was
 * reused.
 */

import { cString } from "../posix/libc.ts";
import { Errno, systemError } from "./errno.ts";
import { O_APPEND, O_CLOEXEC, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } from "./fcntl.ts";
import { checkOwnFile, decode, readAll, removeFile, statusOf } from "./files.ts";
import { errno, libc } from "./libc.ts";

// Specification: sys/file.h
const LOCK_EX = 2;
const LOCK_NB = 4;

// Implementation
const OWNER_READS_AND_WRITES = 0o600;
const LINE_FEED = 0x0a;

/** Takes the lock of a file; `false` when it is held. */
function lock(descriptor: number, path: string): boolean {
  if (libc().flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true;
  const error = errno();
  if (error === Errno.EAGAIN) return false;
  throw systemError(`lock "${path}"`, "flock", error);
}

/** An open file whose lock this process holds. Closing it releases the lock. */
export class LockedFile implements Disposable {
  /** Path of the file. */
  readonly path: string;
  #descriptor: number;
  #length = 0;

  private constructor(path: string, descriptor: number) {
    this.path = path;
    this.#descriptor = descriptor;
  }

  /**
   * Creates a file for appending.
   *
   * @returns `undefined` when another process locked the new file first: retry with another name.
   * @throws {Error} as {@linkcode systemError}; `EEXIST` for an existing file.
   */
  static create(path: string): LockedFile | undefined {
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const descriptor = libc().open(cString(path), flags, OWNER_READS_AND_WRITES);
    if (descriptor < 0) throw systemError(`create "${path}"`, "open", errno());
    const file = new LockedFile(path, descriptor);
    try {
      // A process that saw the file before its lock was taken may have removed it.
      if (lock(descriptor, path) && statusOf(descriptor, path).links > 0) return file;
    } catch (error) {
      file.remove();
      throw error;
    }
    file.close();
    return undefined;
  }

  /**
   * Opens a file for reading.
   *
   * @returns `undefined` when another process holds its lock, or when it is gone.
   * @throws {Error} as {@linkcode checkOwnFile}, when others could have written it or it is not a regular file.
   */
  static open(path: string): LockedFile | undefined {
    // Without O_NONBLOCK, opening a FIFO in the file's place would block.
    const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    const descriptor = libc().open(cString(path), flags, 0);
    if (descriptor < 0) {
      const error = errno();
      if (error === Errno.ENOENT) return undefined;
      const remedy = error === Errno.ELOOP ? "it is a symbolic link: remove it" : undefined;
      throw systemError(`open "${path}"`, "open", error, remedy);
    }
    const file = new LockedFile(path, descriptor);
    try {
      checkOwnFile(descriptor, path);
      if (lock(descriptor, path) && statusOf(descriptor, path).links > 0) return file;
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
    return undefined;
  }

  /** Bytes that were appended. */
  get length(): number {
    return this.#length;
  }

  /**
   * Reads its complete lines as text. An incomplete last line, which may end within a character, is left out.
   *
   * @throws {RangeError} when it is longer than `limit` bytes.
   * @throws {SyntaxError} when it is not UTF-8.
   */
  read(limit: number): string {
    const { length } = statusOf(this.#descriptor, this.path);
    if (length > limit) {
      throw new RangeError(
        `Cannot read "${this.path}": it must have at most ${limit} bytes, got ${length}: remove it`,
      );
    }
    const bytes = readAll(this.#descriptor, this.path, limit);
    return decode(bytes.subarray(0, bytes.lastIndexOf(LINE_FEED) + 1), this.path);
  }

  /**
   * Appends bytes: all of them, or none.
   *
   * @throws {Error} as {@linkcode systemError}, such as `ENOSPC`.
   */
  append(bytes: Uint8Array<ArrayBuffer>): void {
    const { writeFrom, ftruncate } = libc();
    for (let written = 0; written < bytes.length;) {
      const count = writeFrom(
        this.#descriptor,
        bytes.subarray(written),
        BigInt(bytes.length - written),
      );
      const error = count < 0 ? errno() : 0;
      if (error === Errno.EINTR) continue;
      if (error !== 0) {
        ftruncate(this.#descriptor, BigInt(this.#length));
        throw systemError(`write "${this.path}"`, "write", error);
      }
      written += count;
    }
    this.#length += bytes.length;
  }

  /** Removes the file and closes it. */
  remove(): void {
    try {
      removeFile(this.path);
    } finally {
      this.close();
    }
  }

  /** Releases the lock; the file stays. Further calls do nothing. */
  close(): void {
    if (this.#descriptor < 0) return;
    libc().close(this.#descriptor);
    this.#descriptor = -1;
  }

  /** {@linkcode LockedFile.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
