/**
 * A private file that its writer keeps locked (flock(2)).
 *
 * The kernel releases the lock when the writer ends. The lock thus shows whether the writer still runs, even from a
 * different PID namespace or after its PID has been reused.
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

/** An open file that this process has locked. */
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
   * @returns `undefined` when another process locked the new file first; the caller must retry with a different name.
   * @throws {DriverError} when the file exists (`EEXIST`).
   * @throws {Deno.errors.PermissionDenied} when this user may not create it.
   */
  static create(path: string): LockedFile | undefined {
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const descriptor = libc().open(cString(path), flags, OWNER_READS_AND_WRITES);
    if (descriptor < 0) throw systemError(`create "${path}"`, "open", errno());
    const file = new LockedFile(path, descriptor);
    try {
      return file.#lock();
    } catch (error) {
      removeFile(path);
      throw error;
    }
  }

  /**
   * Opens a file for reading.
   *
   * @returns `undefined` when the file does not exist, or another process has locked it.
   * @throws {Deno.errors.PermissionDenied} when another user could have written the file, or it is not a regular file.
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
    return new LockedFile(path, descriptor).#lock();
  }

  /** Locks the file; otherwise closes it, and returns `undefined` if another process has locked or removed it. */
  #lock(): LockedFile | undefined {
    using undo = new DisposableStack();
    undo.defer(() => this.close());
    checkOwnFile(this.#descriptor, this.path);
    if (libc().flock(this.#descriptor, LOCK_EX | LOCK_NB) !== 0) {
      const error = errno();
      if (error === Errno.EAGAIN) return undefined;
      throw systemError(`lock "${this.path}"`, "flock", error);
    }
    if (statusOf(this.#descriptor, this.path).links === 0) return undefined;
    undo.move();
    return this;
  }

  /** Number of appended bytes. */
  get length(): number {
    return this.#length;
  }

  /**
   * Reads the complete lines as text. An incomplete last line is omitted, as it may end within a character.
   *
   * @throws {RangeError} when the file is longer than `limit` bytes.
   * @throws {SyntaxError} when the file is not UTF-8.
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
   * Appends all of the bytes, or none if it throws.
   *
   * @throws {DriverError} when the file cannot be written, such as `ENOSPC`.
   */
  append(bytes: Uint8Array<ArrayBuffer>): void {
    const { writeFrom, ftruncate } = libc();
    for (let written = 0; written < bytes.length;) {
      const rest = bytes.subarray(written);
      const count = writeFrom(this.#descriptor, rest, BigInt(rest.length));
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

  /** Releases the lock but does not remove the file. Further calls do nothing. */
  close(): void {
    if (this.#descriptor < 0) return;
    libc().close(this.#descriptor);
    this.#descriptor = -1;
  }

  /** Calls {@linkcode LockedFile.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
