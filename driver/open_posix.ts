/** The C library of a POSIX system. */

import type { Posix } from "./posix/libc.ts";

/** Opens the C library; `undefined` on a system that is not POSIX. */
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
