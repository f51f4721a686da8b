/** Files that Warren makes for its user, such as captures: nothing is overwritten, and nobody else may read them. */

import { dirname } from "node:path";
import { fileError } from "./file_error.ts";

// Implementation
const OWNER_READS_AND_WRITES = 0o600;

/**
 * Makes a file and opens it for writing.
 *
 * @param what The kind of its content for the error, such as `capture`.
 * @param remedies What to do, by the name of the error's class.
 * @throws {Deno.errors.AlreadyExists} when there is such a file; others as {@linkcode fileError} has them.
 */
export function openNewFile(
  what: string,
  path: string,
  remedies: Readonly<Record<string, string>>,
): Deno.FsFile {
  try {
    return Deno.openSync(path, { write: true, createNew: true, mode: OWNER_READS_AND_WRITES });
  } catch (error) {
    const attempt = `write ${what} "${path}"`;
    if (error instanceof Deno.errors.NotFound) {
      const message = `Cannot ${attempt}: there is no folder "${dirname(path)}"`;
      throw new Deno.errors.NotFound(message, { cause: error });
    }
    if (error instanceof Deno.errors.NotCapable) {
      const message = `Cannot ${attempt}: deno may not: run it with --allow-write`;
      throw new Deno.errors.NotCapable(message, { cause: error });
    }
    throw fileError(attempt, error, remedies);
  }
}

/** A time for a file's name, by the clock on this machine's wall: `20261123-101500`. */
export function fileTime(time = Temporal.Now.plainDateTimeISO()): string {
  return time.toString({ smallestUnit: "second" }).replace(/[-:]/g, "").replace("T", "-");
}
