/** Opens the C library of Linux, macOS or FreeBSD. */

import type { Posix } from "./posix/libc.ts";

/** Returns the C library, or `undefined` on other systems. @throws {Deno.errors.NotCapable} without `--allow-ffi`. */
export async function openPosix(): Promise<Posix | undefined> {
  switch (Deno.build.os) {
    case "linux":
      return (await import("./linux/libc.ts")).posix();
    case "darwin":
      return (await import("./macos/libsystem.ts")).darwin();
    case "freebsd":
      return (await import("./freebsd/libc.ts")).freebsd();
    default:
      return undefined;
  }
}
