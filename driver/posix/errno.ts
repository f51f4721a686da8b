/** Error numbers of a POSIX system, which differ between systems, as names and as errors. */

import { DriverError } from "../error.ts";

/**
 * Error for a failed system call: `PermissionDenied`, `NotFound`, `AddrInUse` or `NotSupported` of `Deno.errors` where
 * one fits, else a {@linkcode DriverError}.
 *
 * @param attempt The action that failed, such as `open "/dev/net/tun"`; the message is *Cannot attempt: ...*.
 * @param remedy The remedy, or the reason in more detail.
 */
export type SystemError = (attempt: string, operation: string, errno: number, remedy?: string) => Error;

/** Result of {@linkcode errorsOf}. */
export interface Errors {
  /** Name of an error number, such as `EPERM`; `errno 200` for one that is not in the table. */
  readonly errnoName: (errno: number) => string;
  /** Error for a failed system call. */
  readonly systemError: SystemError;
}

/** Makes the names and errors for a table of numbers. */
export function errorsOf(numbers: Readonly<Record<string, number>>): Errors {
  const names = new Map(Object.entries(numbers).map(([name, errno]) => [errno, name]));
  const errnoName = (errno: number) => names.get(errno) ?? `errno ${errno}`;
  const systemError: SystemError = (attempt, operation, errno, remedy) => {
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
