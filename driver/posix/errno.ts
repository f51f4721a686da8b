/** A POSIX system's error numbers, which each system counts for itself, as names and as errors. */

import { DriverError } from "../error.ts";

/**
 * The error for a failed system call, by the class that the house style gives it: not allowed, not there,
 * taken and not on this system are Deno's own; everything else is a {@linkcode DriverError}.
 *
 * @param attempt What could not be done, such as `open "/dev/net/tun"`; the message is *Cannot attempt: ...*.
 * @param remedy What to do about it, or more of what is so.
 */
export type SystemError = (attempt: string, operation: string, errno: number, remedy?: string) => Error;

/** What {@linkcode errorsOf} makes of a system's numbers. */
export interface Errors {
  /** The name of an error number, such as `EPERM`; `errno 200` for one that is not in the table. */
  readonly errnoName: (errno: number) => string;
  /** The error for a failed system call. */
  readonly systemError: SystemError;
}

/** Names and errors for the numbers of a table. */
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
