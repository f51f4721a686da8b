/** Replaces this process with another program. */

import { addressOf } from "./native_memory.ts";
import { openPosix } from "./open_posix.ts";
import { cString } from "./posix/libc.ts";

/** True if this system supports {@linkcode replaceProcess}; Windows does not. */
export const CAN_REPLACE_PROCESS: boolean = Deno.build.os !== "windows";

/**
 * Replaces this process with another program, which inherits the process ID, environment, standard streams and terminal
 * (execv(3)).
 *
 * @param path Path of the program.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} on Windows.
 * @throws {Error} when execv fails: `Deno.errors.NotFound` or `PermissionDenied`, otherwise {@linkcode DriverError}.
 */
export async function replaceProcess(path: string, args: readonly string[]): Promise<never> {
  const posix = await openPosix();
  if (posix === undefined) {
    throw new Deno.errors.NotSupported(`Cannot replace this process: ${Deno.build.os} has no execv`);
  }
  const strings = [path, ...args].map(cString);
  const addresses = strings.map((string) => BigInt(addressOf(string)));
  posix.functions.execv(strings[0]!, BigUint64Array.of(...addresses, 0n));
  throw posix.systemError(`start "${path}"`, "execv", posix.errno());
}
