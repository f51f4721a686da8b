/** Uniform messages for errors of file operations. */

import { errorMessage } from "../../driver/error.ts";

/** Reasons by error class. */
const FILE_FAILURES: readonly (readonly [new (message: string, options: ErrorOptions) => Error, string])[] = [
  [Deno.errors.NotFound, "it does not exist"],
  [Deno.errors.AlreadyExists, "it exists already"],
  [Deno.errors.NotADirectory, "a part of the path is not a folder"],
  [Deno.errors.IsADirectory, "it is a folder"],
  [Deno.errors.PermissionDenied, "permission denied"],
  [Deno.errors.NotCapable, "deno has no permission: run it with --allow-read and --allow-write"],
  [Deno.errors.Busy, "another program uses it"],
];

/** Remedies by the name of the error class. */
export type Remedies = Readonly<Record<string, string>>;

/**
 * Converts an error of a file operation into one of the same class with a uniform message.
 *
 * @param attempt The operation, such as `read "a.zip"`, which follows "Cannot".
 */
export function fileError(attempt: string, error: unknown, remedies: Remedies = {}): Error {
  const [kind, reason] = FILE_FAILURES.find(([kind]) => error instanceof kind) ??
    [Error, errorMessage(error)];
  const remedy = error instanceof Error ? remedies[error.name] : undefined;
  return new kind(`Cannot ${attempt}: ${reason}${remedy === undefined ? "" : `: ${remedy}`}`, {
    cause: error,
  });
}
