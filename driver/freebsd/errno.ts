/** FreeBSD's error numbers (sys/errno.h) as names and as errors. */

import { BsdErrno } from "../bsd/errno.ts";
import { type Errors, errorsOf } from "../posix/errno.ts";

// Specification
const own = { EOPNOTSUPP: 45 } as const;

/** The numbers that Warren meets, by name. */
export const Errno: typeof BsdErrno & typeof own = { ...BsdErrno, ...own };

const errors = errorsOf(Errno);

/** The name of an error number, such as `EPERM`; `errno 200` for one not listed above. */
export const errnoName: Errors["errnoName"] = errors.errnoName;

/** The error for a failed system call. */
export const systemError: Errors["systemError"] = errors.systemError;
