/** Darwin's error numbers (bsd/sys/errno.h) as names and as errors. */

import { type Errors, errorsOf } from "../posix/errno.ts";

// Specification
/** The numbers that Warren meets, by name. */
export const Errno = {
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
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  EPIPE: 32,
  EAGAIN: 35,
  ENOTSOCK: 38,
  EMSGSIZE: 40,
  EPROTOTYPE: 41,
  ENOPROTOOPT: 42,
  EPROTONOSUPPORT: 43,
  ENOTSUP: 45,
  EAFNOSUPPORT: 47,
  EADDRINUSE: 48,
  EADDRNOTAVAIL: 49,
  ENETDOWN: 50,
  ENETUNREACH: 51,
  ECONNRESET: 54,
  ENOBUFS: 55,
  EISCONN: 56,
  ENOTCONN: 57,
  ECONNREFUSED: 61,
  EHOSTDOWN: 64,
  EHOSTUNREACH: 65,
  ENOSYS: 78,
  EOPNOTSUPP: 102,
} as const;

const errors = errorsOf(Errno);

/** The name of an error number, such as `EPERM`; `errno 200` for one not listed above. */
export const errnoName: Errors["errnoName"] = errors.errnoName;

/** The error for a failed system call. */
export const systemError: Errors["systemError"] = errors.systemError;
