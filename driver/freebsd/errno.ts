/** Error numbers of FreeBSD (sys/errno.h), their names and errors. */

import { BsdErrno } from "../bsd/errno.ts";
import { errorsOf } from "../posix/errno.ts";

// Specification
/** Error numbers by name. */
export const Errno = { ...BsdErrno, EOPNOTSUPP: 45 } as const;

export const { errnoName, systemError } = errorsOf(Errno);
