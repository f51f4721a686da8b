/** The one error class of ours, a system call that failed, with its code; and what errors say. */

/** What a {@linkcode DriverError} carries. */
export interface DriverErrorOptions extends ErrorOptions {
  /** The system call or library function, such as `TUNSETIFF` or `RTM_NEWADDR`. */
  operation: string;
  /** The system's name for the error, such as `EBUSY`. */
  code: string;
  /** The system's number for it. */
  errno: number;
}

/** A system call failed in a way that no built-in error class says better. */
export class DriverError extends Error {
  /** @ignore */
  override readonly name = "DriverError";
  /** The system call or library function that failed. */
  readonly operation: string;
  /** The system's name for the error, such as `EBUSY`. */
  readonly code: string;
  /** The system's number for it. */
  readonly errno: number;

  /** A message of the form *Cannot verb thing: what is so: what to do*, and what the system said. */
  constructor(message: string, options: DriverErrorOptions) {
    super(message, { cause: options.cause });
    this.operation = options.operation;
    this.code = options.code;
    this.errno = options.errno;
  }
}

/** What to do on a system that Warren has no driver for. */
export const WITHOUT_DRIVER = "use MemoryDevice.pair(), Linux, macOS, FreeBSD or Windows";

/** What was thrown, in words: somebody else's code throws anything. */
export function errorMessage(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
