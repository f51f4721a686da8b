/** This system's C library, where it is a POSIX one. */

import type { Posix } from "./posix/libc.ts";

/** Opens the C library; returns `undefined` on other systems. */
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
