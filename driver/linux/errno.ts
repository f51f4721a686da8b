/** Linux's error numbers (include/uapi/asm-generic/errno-base.h, errno.h) as names and as errors. */

import { DriverError } from "../error.ts";

// Specification
/** The numbers that Warren meets, by name. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ERANGE: 34,
  ENOSYS: 38,
  EBADFD: 77,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  ENOTSOCK: 88,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  ECONNREFUSED: 111,
  ESRCH: 3,
  EHOSTUNREACH: 113,
  ENOTDIR: 20,
  EROFS: 30,
  ENAMETOOLONG: 36,
  ELOOP: 40,
} as const;

const NAMES = new Map<number, string>(Object.entries(Errno).map(([name, errno]) => [errno, name]));

/** The name of an error number, such as `EPERM`; `errno 200` for one not listed above. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}

/**
 * The error for a failed system call, by the class that the house style gives it: not allowed, not there,
 * taken and not on this system are Deno's own; everything else is a {@linkcode DriverError}.
 *
 * @param attempt What could not be done, such as `open "/dev/net/tun"`; the message is *Cannot attempt: ...*.
 * @param remedy What to do about it, or more of what is so.
 */
export function systemError(attempt: string, operation: string, errno: number, remedy?: string): Error {
  const code = errnoName(errno);
  const message = `Cannot ${attempt}: ${code} (${errno})${remedy === undefined ? "" : `: ${remedy}`}`;
  switch (errno) {
    case Errno.EPERM:
    case Errno.EACCES:
      return new Deno.errors.PermissionDenied(message);
    case Errno.ENOENT:
    case Errno.ENODEV:
    case Errno.ENXIO:
      return new Deno.errors.NotFound(message);
    case Errno.EADDRINUSE:
      return new Deno.errors.AddrInUse(message);
    case Errno.ENOSYS:
    case Errno.EOPNOTSUPP:
    case Errno.EAFNOSUPPORT:
      return new Deno.errors.NotSupported(message);
    default:
      return new DriverError(message, { operation, code, errno });
  }
}
