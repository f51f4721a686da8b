/** The C library of FreeBSD: its symbol table, opened on first use, its `errno`, and constants of FreeBSD. */

import { libraryError, requestFfi } from "../ffi.ts";
import { type Bsd, BSD_SYMBOLS } from "../bsd/bsd.ts";
import { FREEBSD_LOCAL_CONTROL } from "../bsd/local_control.ts";
import { Errno, errnoName, systemError } from "./errno.ts";

const SYMBOLS = {
  ...BSD_SYMBOLS,
  // int open(const char *path, int flags, ... /* mode_t mode */);
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // int fcntl(int fd, int command, ... /* int argument */);
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ... /* void *argument */);
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int *__error(void);
  __error: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

// Implementation
const SONAME = "libc.so.7";

/** FreeBSD as a {@linkcode Bsd}, with the functions that Warren calls only there. */
export interface FreeBsd extends Bsd {
  readonly functions: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];
}

let opened: FreeBsd | undefined;

function load(): FreeBsd {
  requestFfi("the C library");
  try {
    const functions = Deno.dlopen(SONAME, SYMBOLS).symbols;
    // Each thread has its own location, which never moves (errno(2)).
    const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(functions.__error()!, 4));
    const { fcntl, ioctl } = functions;
    return { ...FREEBSD, functions, fcntl, ioctl, errno: () => errno[0]! };
  } catch (error) {
    throw libraryError("the C library", error);
  }
}

/** Constants and structure sizes of FreeBSD with their headers, unchanged since FreeBSD 11. */
export const FREEBSD = {
  system: "FreeBSD",
  asRoot: "run as root",
  Errno,
  errnoName,
  systemError,
  /** sys/fcntl.h. */
  O_NONBLOCK: 4,
  /** sys/socket.h. */
  AF_INET6: 28,
  boundInterface: undefined,
  localControl: FREEBSD_LOCAL_CONTROL,
  /** sys/sockio.h: _IOW('i', 43, struct ifaliasreq). */
  SIOCAIFADDR: 0x8044_692bn,
  /** netinet6/in6_var.h: _IOW('i', 27, struct in6_aliasreq). */
  SIOCAIFADDR_IN6: 0x8088_691bn,
  /** net/if.h, netinet6/in6_var.h, net/route.h, net/if_dl.h; the first two structures end with a vhid. */
  sizes: { ifaliasreq: 68, in6_aliasreq: 136, rt_msghdr: 152, sockaddr_dl: 54 },
  /** net/route.h, SA_SIZE: rounds up to a long. */
  routeAlignment: 8,
  /** sys/socket.h: NET_RT_IFLIST returns `struct if_msghdr`, whose `ifm_data` has `ifi_oqdrops` at offset 104. */
  counters: { list: 3, data: 16, queueDrops: 16 + 104, queueDropsSize: 8 },
} as const;

/**
 * Returns FreeBSD as a {@linkcode Bsd}; its C library is opened on the first call.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 */
export function freebsd(): FreeBsd {
  return opened ??= load();
}
