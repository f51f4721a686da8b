/** Error numbers of Linux (include/uapi/asm-generic/errno-base.h, errno.h), their names and errors. */

import { errorsOf, PosixErrno } from "../posix/errno.ts";

// Specification
/** Error numbers that Warren handles or names. */
export const Errno = {
  ...PosixErrno,
  EAGAIN: 11,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  EBADFD: 77,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  ECANCELED: 125,
} as const;

export const { errnoName, systemError } = errorsOf(Errno);
