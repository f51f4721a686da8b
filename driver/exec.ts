/** Another program in the place of this process. */

import type { Posix } from "./posix/libc.ts";

/** Whether {@linkcode replaceProcess} works: Windows has no such call. */
export const CAN_REPLACE_PROCESS: boolean = Deno.build.os !== "windows";

/**
 * Replaces this process by another program, which keeps its number, its streams, its environment and its terminal
 * (execv(3)). Returns only by throwing.
 *
 * @param path The program's file.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`; {@linkcode DriverError} and the like for what the system says.
 */
export async function replaceProcess(path: string, args: readonly string[]): Promise<never> {
  const { functions, errno, systemError } = await posix();
  const strings = [path, ...args].map(cString);
  const addresses = strings.map((string) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(string)));
  functions.execv(strings[0]!, BigUint64Array.of(...addresses, 0n));
  throw systemError(`start "${path}"`, "execv", errno());
}

async function posix(): Promise<Posix> {
  switch (Deno.build.os) {
    case "linux":
      return (await import("./linux/libc.ts")).posix();
    case "darwin":
      return (await import("./macos/libsystem.ts")).darwin();
    case "freebsd":
      return (await import("./freebsd/libc.ts")).freebsd();
    default:
      throw new Deno.errors.NotSupported(`Cannot replace this process: ${Deno.build.os} has no execv`);
  }
}

function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) throw new TypeError(`Cannot start a program: an argument has a zero character`);
  return new TextEncoder().encode(`${text}\0`);
}
