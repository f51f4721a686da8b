/** File access through the C library, for scripts whose only permission is --allow-ffi. */

import { cString } from "../posix/libc.ts";
import { Errno, systemError } from "./errno.ts";
import { O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY } from "./fcntl.ts";
import { errno, libc } from "./libc.ts";
import { viewOf } from "../native_memory.ts";

// Specification: include/uapi/linux/{stat,fcntl}.h, dirent.h of glibc and musl
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;
/**
 * ```c
 * struct statx {
 *   __u32 stx_mask, stx_blksize;
 *   __u64 stx_attributes;
 *   __u32 stx_nlink, stx_uid, stx_gid;
 *   __u16 stx_mode, __spare0[1];
 *   __u64 stx_ino, stx_size;
 *   ...
 * };
 * ```
 */
const STATX = { nlink: 16, uid: 20, mode: 28, size: 256, length: 40 } as const;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
/**
 * ```c
 * struct dirent {
 *   ino_t d_ino;
 *   off_t d_off;
 *   unsigned short d_reclen;
 *   unsigned char d_type;
 *   char d_name[256];
 * };
 * ```
 */
const DIRENT = { name: 19 } as const;

// Implementation
const CHUNK_BYTES = 4096;
const OWNER_ALL = 0o700;
const OTHERS_ANY = 0o077;
const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** Status of an open file (statx(2)). */
interface Status {
  readonly kind: number;
  readonly mode: number;
  readonly owner: number;
  /** Number of hard links; 0 after the file is removed. */
  readonly links: number;
  /** Length (bytes). */
  readonly length: number;
}

/** Returns the status of an open file; `path` is for the error message. */
export function statusOf(descriptor: number, path: string): Status {
  const status = new Uint8Array(STATX.size);
  if (libc().statx(descriptor, cString(""), AT_EMPTY_PATH, STATX_BASIC_STATS, status) < 0) {
    throw systemError(`examine "${path}"`, "statx", errno());
  }
  const view = viewOf(status);
  const mode = view.getUint16(STATX.mode, true);
  return {
    kind: mode & S_IFMT,
    mode: mode & ~S_IFMT,
    owner: view.getUint32(STATX.uid, true),
    links: view.getUint32(STATX.nlink, true),
    length: Number(view.getBigUint64(STATX.length, true)),
  };
}

/**
 * Reads an open file to its end.
 *
 * @throws {RangeError} when the file has more than `limit` bytes.
 */
export function readAll(descriptor: number, path: string, limit: number): Uint8Array {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const count = libc().readInto(descriptor, chunk, BigInt(chunk.length));
    if (count < 0) throw systemError(`read "${path}"`, "read", errno());
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    length += count;
    if (length > limit) throw new RangeError(`Cannot read "${path}": it has more than ${limit} bytes`);
  }
  return concat(chunks);
}

/** Joins byte arrays. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((offset, part) => (whole.set(part, offset), offset + part.length), 0);
  return whole;
}

/** Reads a short text file such as one in /proc; `undefined` when it cannot be read. */
export function readSystemFile(path: string): string | undefined {
  const descriptor = libc().open(cString(path), O_RDONLY | O_CLOEXEC, 0);
  if (descriptor < 0) return undefined;
  try {
    return new TextDecoder().decode(readAll(descriptor, path, CHUNK_BYTES));
  } catch {
    // Such as a file in /proc about a process that has just ended.
    return undefined;
  } finally {
    libc().close(descriptor);
  }
}

/**
 * Checks that an open file could have been written only by this user or root.
 *
 * @throws {Deno.errors.PermissionDenied} when other users could have written the file, or it is not a regular file.
 */
export function checkOwnFile(descriptor: number, path: string): void {
  const { kind, mode, owner } = statusOf(descriptor, path);
  const user = libc().geteuid();
  const fail = (what: string): never => {
    throw new Deno.errors.PermissionDenied(`Cannot trust "${path}": ${what}: remove it`);
  };
  if (kind !== S_IFREG) fail("it is not a regular file");
  if (owner !== user && owner !== 0) fail(`its owner must be user ${user} or root, got user ${owner}`);
  if ((mode & OTHERS_WRITE) !== 0) fail("others may write to it");
}

/**
 * Decodes the content of a file.
 *
 * @throws {SyntaxError} when it is not UTF-8.
 */
export function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new SyntaxError(`Cannot read "${path}": it is not UTF-8: remove it`, { cause: error });
  }
}

/** Removes a file; does nothing when it does not exist. */
export function removeFile(path: string): void {
  if (libc().unlink(cString(path)) === 0) return;
  const error = errno();
  if (error !== Errno.ENOENT) throw systemError(`remove "${path}"`, "unlink", error);
}

/**
 * Creates a folder that only this user may enter. An existing folder must be as {@linkcode checkFolder} requires.
 *
 * @throws {Error} as {@linkcode checkFolder}.
 */
export function createFolder(path: string): void {
  checkParent(path);
  if (libc().mkdir(cString(path), OWNER_ALL) !== 0) {
    const error = errno();
    if (error !== Errno.EEXIST) throw systemError(`create "${path}"`, "mkdir", error);
  }
  checkFolder(path);
}

/**
 * Checks that only this user can enter or replace a folder.
 *
 * @throws {Deno.errors.PermissionDenied} when other users can.
 * @throws {Deno.errors.NotFound} when the folder does not exist.
 */
export function checkFolder(path: string): void {
  const user = libc().geteuid();
  const { mode, owner } = statusOfFolder(path, O_NOFOLLOW);
  if (owner !== user || (mode & OTHERS_ANY) !== 0) {
    throw new Deno.errors.PermissionDenied(
      `Cannot trust "${path}": it must belong to user ${user} with mode 700, got user ${owner} with mode ${
        mode.toString(8)
      }: remove it`,
    );
  }
  checkParent(path);
}

/** Checks that no other user can rename entries in the parent folder. */
function checkParent(path: string): void {
  const parent = path.slice(0, path.lastIndexOf("/")) || "/";
  const { mode, owner } = statusOfFolder(parent, 0);
  const othersCanRename = (mode & OTHERS_WRITE) !== 0 && (mode & STICKY) === 0;
  if ((owner === 0 || owner === libc().geteuid()) && !othersCanRename) return;
  throw new Deno.errors.PermissionDenied(
    `Cannot trust "${path}": others must not be able to replace it, got "${parent}" of user ${owner} with mode ${
      mode.toString(8)
    }`,
  );
}

function statusOfFolder(path: string, flags: number): Status {
  const descriptor = libc().open(cString(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags, 0);
  if (descriptor < 0) throw systemError(`open "${path}"`, "open", errno());
  try {
    return statusOf(descriptor, path);
  } finally {
    libc().close(descriptor);
  }
}

/**
 * Returns the sorted names of the entries in a folder; none when it does not exist.
 *
 * @throws {RangeError} when there are more than `limit` entries.
 */
export function listFolder(path: string, limit: number): string[] {
  const { opendir, readdir, closedir } = libc();
  const folder = opendir(cString(path));
  if (folder === null) return [];
  try {
    const names: string[] = [];
    for (let entry = readdir(folder); entry !== null; entry = readdir(folder)) {
      const name = new Deno.UnsafePointerView(entry).getCString(DIRENT.name);
      if (name === "." || name === "..") continue;
      if (names.length === limit) {
        throw new RangeError(
          `Cannot list "${path}": it must have at most ${limit} files: remove files that are not needed`,
        );
      }
      names.push(name);
    }
    return names.sort();
  } finally {
    closedir(folder);
  }
}

/** Returns the target of a symbolic link; `undefined` when it cannot be read. */
export function readLinkText(path: string): string | undefined {
  const target = new Uint8Array(CHUNK_BYTES);
  const length = libc().readlink(cString(path), target, BigInt(target.length));
  return length < 0 ? undefined : new TextDecoder().decode(target.subarray(0, length));
}

/** Returns the value of an environment variable; `undefined` when it is not set. */
export function environment(name: string): string | undefined {
  const value = libc().getenv(cString(name));
  return value === null ? undefined : Deno.UnsafePointerView.getCString(value);
}
