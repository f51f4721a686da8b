/** The error class of a failed system call, and texts that error messages share. */

/** Fields of a {@linkcode DriverError}. */
export interface DriverErrorOptions extends ErrorOptions {
  /** System call, request or library function, such as `TUNSETIFF` or `RTM_NEWADDR`. */
  operation: string;
  /** Name of the error, such as `EBUSY`. */
  code: string;
  /** Number of the error. */
  errno: number;
}

/** Failure of a system call for which `Deno.errors` has no class. */
export class DriverError extends Error {
  /** @ignore */
  override readonly name = "DriverError";
  /** System call, request or library function that failed. */
  readonly operation: string;
  /** Name of the error, such as `EBUSY`. */
  readonly code: string;
  /** Number of the error. */
  readonly errno: number;

  /** Creates an error; `message` has the form *Cannot verb thing: cause: remedy*. */
  constructor(message: string, options: DriverErrorOptions) {
    super(message, { cause: options.cause });
    this.operation = options.operation;
    this.code = options.code;
    this.errno = options.errno;
  }
}

/** Remedy for a system that Warren has no driver for. */
export const WITHOUT_DRIVER = "use MemoryDevice.pair(), Linux, macOS, FreeBSD or Windows";

/** Returns the error for a system that Warren has no driver for. */
export function noDriver(): Error {
  return new Deno.errors.NotSupported(
    `Cannot use this system: Warren has no driver for ${Deno.build.os} yet: ${WITHOUT_DRIVER}`,
  );
}

/** Returns the message of a thrown value, which may not be an `Error`. */
export function errorMessage(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
