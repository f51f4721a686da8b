/** Creation of files such as captures, which overwrite no existing file and which only their owner can read. */

import { dirname } from "node:path";
import { fileError, type Remedies } from "./file_error.ts";

// Implementation
const OWNER_READS_AND_WRITES = 0o600;

/**
 * Creates a file and opens it for writing.
 *
 * @param what Kind of content for messages, such as `capture`.
 * @throws {Deno.errors.AlreadyExists} when the file exists.
 * @throws {Error} for other failures, as described at {@linkcode fileError}.
 */
export function openNewFile(what: string, path: string, remedies: Remedies): Deno.FsFile {
  try {
    return Deno.openSync(path, { write: true, createNew: true, mode: OWNER_READS_AND_WRITES });
  } catch (error) {
    const attempt = `write ${what} "${path}"`;
    if (error instanceof Deno.errors.NotFound) {
      const message = `Cannot ${attempt}: folder "${dirname(path)}" does not exist`;
      throw new Deno.errors.NotFound(message, { cause: error });
    }
    if (error instanceof Deno.errors.NotCapable) {
      const message = `Cannot ${attempt}: deno has no permission: run it with --allow-write`;
      throw new Deno.errors.NotCapable(message, { cause: error });
    }
    throw fileError(attempt, error, remedies);
  }
}

/** Formats a local time for a file name: `20261123-101500`. */
export function fileTime(time = Temporal.Now.plainDateTimeISO()): string {
  return time.toString({ smallestUnit: "second" }).replace(/[-:]/g, "").replace("T", "-");
}
