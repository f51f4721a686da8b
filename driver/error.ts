/** Error of a failed system call, with its code; texts shared by error messages. */

/** Fields of a {@linkcode DriverError}. */
export interface DriverErrorOptions extends ErrorOptions {
  /** System call, request or library function, such as `TUNSETIFF` or `RTM_NEWADDR`. */
  operation: string;
  /** Name of the error, such as `EBUSY`. */
  code: string;
  /** Number of the error. */
  errno: number;
}

/** Failure of a system call, where no error class of Deno fits. */
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

/** Remedy on a system without a driver. */
export const WITHOUT_DRIVER = "use MemoryDevice.pair(), Linux, macOS, FreeBSD or Windows";

/** Message of a thrown value, which need not be an `Error`. */
export function errorMessage(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
