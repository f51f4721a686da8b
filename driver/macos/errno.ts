/** Darwin's error numbers (bsd/sys/errno.h): names and error classes. */

import { BsdErrno } from "../bsd/errno.ts";
import { type Errors, errorsOf } from "../posix/errno.ts";

// Specification
const additional = { ENOTSUP: 45, EOPNOTSUPP: 102 } as const;

/** Error numbers by name. */
export const Errno: typeof BsdErrno & typeof additional = { ...BsdErrno, ...additional };

const errors = errorsOf(Errno);

/** Returns the name of an error number, such as `EPERM`; `errno 200` for one not listed above. */
export const errnoName: Errors["errnoName"] = errors.errnoName;

/** Creates the error for a failed system call. */
export const systemError: Errors["systemError"] = errors.systemError;
