/** Error numbers of Linux (include/uapi/asm-generic/errno-base.h, errno.h) as names and as errors. */

import { type Errors, errorsOf } from "../posix/errno.ts";

// Specification
/** Error numbers that Warren handles or names. */
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
  ECANCELED: 125,
  ESRCH: 3,
  EHOSTUNREACH: 113,
  ENOTDIR: 20,
  EROFS: 30,
  ENAMETOOLONG: 36,
  ELOOP: 40,
} as const;

const errors = errorsOf(Errno);

/** Name of an error number, such as `EPERM`; `errno 200` for one that is not listed above. */
export const errnoName: Errors["errnoName"] = errors.errnoName;

/** Error for a failed system call. */
export const systemError: Errors["systemError"] = errors.systemError;
