/** Names of error numbers, and the errors thrown for failed system calls, on Linux, macOS and FreeBSD. */

import { DriverError } from "../error.ts";

// Specification: errno.h
/** Error numbers that are the same on all three systems. */
export const PosixErrno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
} as const;

/** Names and errors of a system's error numbers. */
export interface Errors {
  /** Returns the name of an error number, such as `EPERM`, or `errno 200` for an unlisted number. */
  readonly errnoName: (errno: number) => string;
  /**
   * Creates the error for a failed system call: `PermissionDenied`, `NotFound`, `AddrInUse` or `NotSupported` of
   * `Deno.errors` where one fits, otherwise a {@linkcode DriverError}.
   *
   * @param attempt The action that failed, such as `open "/dev/net/tun"`; the message is *Cannot attempt: ...*.
   * @param remedy What the user can do, or the reason in more detail.
   */
  readonly systemError: (attempt: string, operation: string, errno: number, remedy?: string) => Error;
}

/** Returns the names and errors for a table of error numbers. */
export function errorsOf(numbers: Readonly<Record<string, number>>): Errors {
  const names = new Map(Object.entries(numbers).map(([name, errno]) => [errno, name]));
  const errnoName = (errno: number) => names.get(errno) ?? `errno ${errno}`;
  const systemError: Errors["systemError"] = (attempt, operation, errno, remedy) => {
    const code = errnoName(errno);
    const message = `Cannot ${attempt}: ${code} (${errno})${remedy === undefined ? "" : `: ${remedy}`}`;
    switch (code) {
      case "EPERM":
      case "EACCES":
        return new Deno.errors.PermissionDenied(message);
      case "ENOENT":
      case "ENODEV":
      case "ENXIO":
        return new Deno.errors.NotFound(message);
      case "EADDRINUSE":
        return new Deno.errors.AddrInUse(message);
      case "ENOSYS":
      case "ENOTSUP":
      case "EOPNOTSUPP":
      case "EAFNOSUPPORT":
        return new Deno.errors.NotSupported(message);
      default:
        return new DriverError(message, { operation, code, errno });
    }
  };
  return { errnoName, systemError };
}
