/** Files through the C library, for a script that has --allow-ffi alone. */

import { cString } from "../posix/libc.ts";
import { Errno, systemError } from "./errno.ts";
import {
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  O_WRONLY,
} from "./fcntl.ts";
import { errno, libc } from "./libc.ts";
import { viewOf } from "./netlink/message.ts";

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
const S_IFDIR = 0o040000;
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
const OWNER_ONLY = 0o700;
const OWNER_READS_AND_WRITES = 0o600;
const OTHERS = 0o077;
const OTHERS_WRITE = 0o022;

interface Status {
  readonly kind: number;
  readonly mode: number;
  readonly owner: number;
  readonly length: number;
}

function statusOf(descriptor: number, path: string): Status {
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
    length: Number(view.getBigUint64(STATX.length, true)),
  };
}

function open(path: string, flags: number): number {
  const descriptor = libc().open(cString(path), flags | O_CLOEXEC, OWNER_READS_AND_WRITES);
  if (descriptor >= 0) return descriptor;
  const error = errno();
  throw systemError(
    `open "${path}"`,
    "open",
    error,
    error === Errno.ELOOP ? "it is a symbolic link: remove it" : undefined,
  );
}

function readAll(descriptor: number, path: string, limit: number): Uint8Array {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const count = libc().readInto(descriptor, chunk, BigInt(chunk.length));
    if (count < 0) throw systemError(`read "${path}"`, "read", errno());
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    length += count;
    if (length > limit) throw new RangeError(`Cannot read "${path}": it is longer than ${limit} bytes`);
  }
  const bytes = new Uint8Array(length);
  chunks.reduce((offset, chunk) => (bytes.set(chunk, offset), offset + chunk.length), 0);
  return bytes;
}

/** A file of the system itself, in /proc, as text; `undefined` when it is not there. */
export function readSystemFile(path: string): string | undefined {
  const descriptor = libc().open(cString(path), O_RDONLY | O_CLOEXEC, 0);
  if (descriptor < 0) return undefined;
  try {
    return new TextDecoder().decode(readAll(descriptor, path, CHUNK_BYTES));
  } catch {
    // The process that it told of ended meanwhile.
    return undefined;
  } finally {
    libc().close(descriptor);
  }
}

/**
 * A file that only we or root could have written, as text.
 *
 * @throws {Error} what {@linkcode systemError} gives; `RangeError` when it is longer than `limit` bytes;
 * `Deno.errors.PermissionDenied` when others could have written it.
 */
export function readOwnFile(path: string, limit: number): string {
  // Without O_NONBLOCK a FIFO in the file's place would hold us.
  const descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const { kind, mode, owner, length } = statusOf(descriptor, path);
    if (kind !== S_IFREG) {
      throw new Deno.errors.PermissionDenied(`Cannot trust "${path}": it is not a file: remove it`);
    }
    checkOwner(path, owner);
    if ((mode & OTHERS_WRITE) !== 0) {
      throw new Deno.errors.PermissionDenied(`Cannot trust "${path}": others may write to it: remove it`);
    }
    if (length > limit) {
      throw new RangeError(
        `Cannot read "${path}": it is ${length} bytes long, more than ${limit}: remove it`,
      );
    }
    return decode(readAll(descriptor, path, limit), path);
  } finally {
    libc().close(descriptor);
  }
}

function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new SyntaxError(`Cannot read "${path}": it is no UTF-8: remove it`, { cause: error });
  }
}

function checkOwner(path: string, owner: number): void {
  const user = libc().geteuid();
  if (owner === user || owner === 0) return;
  throw new Deno.errors.PermissionDenied(
    `Cannot trust "${path}": it belongs to the user ${owner}, not to ${user} or root: remove it`,
  );
}

/** Writes a file at once: whoever opens `path` sees the old text or the new one. */
export function replaceFile(path: string, text: string): void {
  const { writeFrom, close, unlink, rename } = libc();
  const draft = `${path}.new`;
  // Our own, of an earlier attempt: names have our process's number in them.
  unlink(cString(draft));
  const descriptor = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
  const bytes = new TextEncoder().encode(text);
  try {
    for (let offset = 0; offset < bytes.length;) {
      const count = writeFrom(descriptor, bytes.subarray(offset), BigInt(bytes.length - offset));
      if (count < 0) throw systemError(`write "${path}"`, "write", errno());
      offset += count;
    }
  } catch (error) {
    unlink(cString(draft));
    throw error;
  } finally {
    close(descriptor);
  }
  if (rename(cString(draft), cString(path)) < 0) throw systemError(`write "${path}"`, "rename", errno());
}

/** Renames a file; returns whether it was there. */
export function renameFile(from: string, to: string): boolean {
  if (libc().rename(cString(from), cString(to)) === 0) return true;
  const error = errno();
  if (error === Errno.ENOENT) return false;
  throw systemError(`rename "${from}"`, "rename", error);
}

/** Removes a file; one that is not there is well. */
export function removeFile(path: string): void {
  if (libc().unlink(cString(path)) === 0) return;
  const error = errno();
  if (error !== Errno.ENOENT) throw systemError(`remove "${path}"`, "unlink", error);
}

/** Makes a folder that only we may enter; one that is there is well. */
export function makeFolder(path: string): void {
  if (libc().mkdir(cString(path), OWNER_ONLY) === 0) return;
  const error = errno();
  if (error !== Errno.EEXIST) throw systemError(`make "${path}"`, "mkdir", error);
}

/**
 * Checks that a folder is ours alone, no symbolic link, so that nobody else can put or swap a file in it.
 *
 * @throws {Error} what {@linkcode systemError} gives; `Deno.errors.PermissionDenied` when it is not.
 */
export function checkFolder(path: string): void {
  const descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const { kind, mode, owner } = statusOf(descriptor, path);
    const user = libc().geteuid();
    if (kind === S_IFDIR && owner === user && (mode & OTHERS) === 0) return;
    throw new Deno.errors.PermissionDenied(
      `Cannot trust "${path}": it must belong to the user ${user} with mode 700, not to ${owner} with ${
        mode.toString(8)
      }: remove it`,
    );
  } finally {
    libc().close(descriptor);
  }
}

/** The names in a folder; none when it is not there. */
export function listFolder(path: string): string[] {
  const { opendir, readdir, closedir } = libc();
  const folder = opendir(cString(path));
  if (folder === null) return [];
  const names: string[] = [];
  for (let entry = readdir(folder); entry !== null; entry = readdir(folder)) {
    names.push(new Deno.UnsafePointerView(entry).getCString(DIRENT.name));
  }
  closedir(folder);
  return names.filter((name) => name !== "." && name !== "..").sort();
}

/** Where a symbolic link leads; `undefined` when it is not there. */
export function readLinkText(path: string): string | undefined {
  const target = new Uint8Array(CHUNK_BYTES);
  const length = libc().readlink(cString(path), target, BigInt(target.length));
  return length < 0 ? undefined : new TextDecoder().decode(target.subarray(0, length));
}

/** A variable of the environment; `undefined` when it is not set. */
export function environment(name: string): string | undefined {
  const value = libc().getenv(cString(name));
  return value === null ? undefined : Deno.UnsafePointerView.getCString(value);
}
