/** Another program in the place of this process. */

import { openPosix } from "./open_posix.ts";
import { cString } from "./posix/libc.ts";

/** Tells whether {@linkcode replaceProcess} works: Windows has no such call. */
export const CAN_REPLACE_PROCESS: boolean = Deno.build.os !== "windows";

/**
 * Replaces this process by another program, which keeps its number, its streams, its environment and its terminal
 * (execv(3)). Returns only by throwing.
 *
 * @param path The program's file.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`; {@linkcode DriverError} and the like for what the system says.
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
