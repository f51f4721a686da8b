/** What the system refuses to do with files, in our words. */

import { errorMessage } from "../../driver/error.ts";

/** What the system says of a file, in our words. */
const FILE_FAILURES: readonly (readonly [new (message: string, options: ErrorOptions) => Error, string])[] = [
  [Deno.errors.NotFound, "it is not there"],
  [Deno.errors.AlreadyExists, "it is there already"],
  [Deno.errors.NotADirectory, "it, or what is above it, is no folder"],
  [Deno.errors.IsADirectory, "it is a folder"],
  [Deno.errors.PermissionDenied, "this user may not"],
  [Deno.errors.NotCapable, "deno may not: run it with --allow-read and --allow-write"],
  [Deno.errors.Busy, "a program uses it"],
];

/**
 * What the system refused to do with a file, as an error of the same class that says so in our words.
 *
 * @param attempt What it was to be, such as `read "a.zip"`.
 * @param remedies What to do, by the name of the error's class.
 */
export function fileError(
  attempt: string,
  error: unknown,
  remedies: Readonly<Record<string, string>> = {},
): Error {
  const [kind, what] = FILE_FAILURES.find(([kind]) => error instanceof kind) ?? [Error, errorMessage(error)];
  const remedy = error instanceof Error ? remedies[error.name] : undefined;
  return new kind(`Cannot ${attempt}: ${what}${remedy === undefined ? "" : `: ${remedy}`}`, { cause: error });
}
