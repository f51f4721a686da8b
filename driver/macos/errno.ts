/** Error numbers of macOS (bsd/sys/errno.h), their names and errors. */

import { BsdErrno } from "../bsd/errno.ts";
import { errorsOf } from "../posix/errno.ts";

// Specification
/** Error numbers by name. */
export const Errno = { ...BsdErrno, ENOTSUP: 45, EOPNOTSUPP: 102 } as const;

export const { errnoName, systemError } = errorsOf(Errno);
