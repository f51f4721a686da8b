/** libSystem, the C library of macOS: its symbol table, opened on first use, its `errno`, and constants of macOS. */

import { libraryError, requestFfi } from "../ffi.ts";
import { type Bsd, BSD_SYMBOLS } from "../bsd/bsd.ts";
import { DARWIN_LOCAL_CONTROL } from "../bsd/local_control.ts";
import { Errno, errnoName, systemError } from "./errno.ts";

const SYMBOLS = {
  ...BSD_SYMBOLS,
  // ssize_t recvmsg_x(int s, const struct msghdr_x *msgp, u_int cnt, int flags);
  recvmsg_x: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32", optional: true },
  // ssize_t sendmsg_x(int s, const struct msghdr_x *msgp, u_int cnt, int flags);
  sendmsg_x: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32", optional: true },
  // int *__error(void);
  __error: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Variadic functions on x86-64, which passes variadic arguments like any others. */
const VARIADIC_SYMBOLS = {
  // int fcntl(int fd, int command, ... /* int argument */);
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ... /* void *argument */);
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/**
 * Variadic functions on Apple's arm64, which passes variadic arguments on the stack. Six unused parameters therefore
 * fill those of the eight argument registers that the fixed arguments leave free.
 */
export const STACK_VARIADIC_SYMBOLS = {
  // int fcntl(int fd, int command, ... /* int argument */);
  fcntl: {
    parameters: ["i32", "i32", "usize", "usize", "usize", "usize", "usize", "usize", "i32"],
    result: "i32",
  },
  // int ioctl(int fd, unsigned long request, ... /* void *argument */);
  ioctl: {
    parameters: ["i32", "usize", "usize", "usize", "usize", "usize", "usize", "usize", "buffer"],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

// Implementation
const PATH = "/usr/lib/libSystem.B.dylib";
/** Environment variable with the path of a library to load instead, for tests on other systems. */
const PATH_VARIABLE = "WARREN_LIBSYSTEM";

/** Functions of libSystem that Warren calls. */
export type LibSystem = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** macOS as a {@linkcode Bsd}, with the functions that only macOS has. */
export interface Darwin extends Bsd {
  readonly functions: LibSystem;
}

let opened: Darwin | undefined;

function path(): string {
  const { state } = Deno.permissions.querySync({ name: "env", variable: PATH_VARIABLE });
  const named = state === "granted" ? Deno.env.get(PATH_VARIABLE) : undefined;
  if (named !== undefined) {
    console.warn(`warren: using "${named}" instead of libSystem: ${PATH_VARIABLE} is set`);
  }
  return named ?? PATH;
}

function openVariadics(path: string): Pick<Bsd, "fcntl" | "ioctl"> {
  if (Deno.build.arch !== "aarch64") return Deno.dlopen(path, VARIADIC_SYMBOLS).symbols;
  const { fcntl, ioctl } = Deno.dlopen(path, STACK_VARIADIC_SYMBOLS).symbols;
  return {
    fcntl: (fd, command, argument) => fcntl(fd, command, 0n, 0n, 0n, 0n, 0n, 0n, argument),
    ioctl: (fd, request, argument) => ioctl(fd, request, 0n, 0n, 0n, 0n, 0n, 0n, argument),
  };
}

function load(): Darwin {
  const library = path();
  requestFfi("libSystem");
  try {
    const functions = Deno.dlopen(library, SYMBOLS).symbols;
    // Each thread has its own location, which never moves (errno(2)).
    const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(functions.__error()!, 4));
    return { ...openVariadics(library), ...DARWIN, functions, errno: () => errno[0]! };
  } catch (error) {
    throw libraryError(`"${library}"`, error);
  }
}

/** Constants and structure sizes of macOS, with file and line in xnu 11417 (macOS 15). */
export const DARWIN = {
  system: "macOS",
  asRoot: "run with sudo",
  Errno,
  errnoName,
  systemError,
  /** bsd/sys/fcntl.h 115. */
  O_NONBLOCK: 4,
  /** bsd/sys/socket.h 422. */
  AF_INET6: 30,
  boundInterface: { ipv4: 25, ipv6: 125 },
  localControl: DARWIN_LOCAL_CONTROL,
  /** bsd/sys/sockio.h 95: _IOW('i', 26, struct ifaliasreq). */
  SIOCAIFADDR: 0x8040_691an,
  /** bsd/netinet6/in6_var.h 632: _IOW('i', 26, struct in6_aliasreq). */
  SIOCAIFADDR_IN6: 0x8080_691an,
  /** bsd/net/if.h 390, bsd/netinet6/in6_var.h 402, bsd/net/route.h 158, bsd/net/if_dl.h 96. */
  sizes: { ifaliasreq: 64, in6_aliasreq: 128, rt_msghdr: 92, sockaddr_dl: 20 },
  /** bsd/net/rtsock.c 162, ROUNDUP32. */
  routeAlignment: 4,
  /** bsd/sys/socket.h 581, bsd/net/if.h 220: NET_RT_IFLIST2 returns `struct if_msghdr2`. */
  counters: { list: 6, data: 32, queueDrops: 24, queueDropsSize: 4 },
} as const;

/**
 * Returns macOS as a {@linkcode Bsd}; libSystem is opened on the first call.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 */
export function darwin(): Darwin {
  return opened ??= load();
}
