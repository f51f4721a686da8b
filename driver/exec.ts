/** Replacement of this process by another program. */

import { openPosix } from "./open_posix.ts";
import { cString } from "./posix/libc.ts";

/** True where {@linkcode replaceProcess} works: everywhere but on Windows. */
export const CAN_REPLACE_PROCESS: boolean = Deno.build.os !== "windows";

/**
 * Replaces this process with another program, which keeps the process ID, the standard streams, the environment and the
 * terminal (execv(3)). Does not return.
 *
 * @param path File of the program.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`; {@linkcode DriverError} when the system refuses.
 */
export async function replaceProcess(path: string, args: readonly string[]): Promise<never> {
  const posix = await openPosix();
  if (posix === undefined) {
    throw new Deno.errors.NotSupported(`Cannot replace this process: ${Deno.build.os} has no execv`);
  }
  const strings = [path, ...args].map(cString);
  const addresses = strings.map((string) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(string)));
  posix.functions.execv(strings[0]!, BigUint64Array.of(...addresses, 0n));
  throw posix.systemError(`start "${path}"`, "execv", posix.errno());
}
