/** Error numbers common to macOS and FreeBSD (sys/errno.h). */

import { PosixErrno } from "../posix/errno.ts";

// Specification
/** Error numbers by name. */
export const BsdErrno = {
  ...PosixErrno,
  EAGAIN: 35,
  ENOTSOCK: 38,
  EMSGSIZE: 40,
  EPROTOTYPE: 41,
  ENOPROTOOPT: 42,
  EPROTONOSUPPORT: 43,
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
} as const;
