/** Interface of the shared BSD code to a system: functions, numbers and structure sizes of macOS or FreeBSD. */

import type { BsdErrno } from "./errno.ts";
import { type Posix, POSIX_SYMBOLS } from "../posix/libc.ts";
import type { LocalControl } from "../posix/local_control.ts";
import type { SocketSystem } from "../posix/udp_socket.ts";

/** Functions with the same signature on both systems. */
export const BSD_SYMBOLS = {
  ...POSIX_SYMBOLS,
  // int connect(int fd, const struct sockaddr *addr, socklen_t addrlen);
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int getsockopt(int fd, int level, int optname, void *optval, socklen_t *optlen);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int sysctl(int *name, u_int namelen, void *oldp, size_t *oldlenp, void *newp, size_t newlen);
  sysctl: { parameters: ["buffer", "u32", "buffer", "buffer", "buffer", "usize"], result: "i32" },
  // ssize_t recvmsg(int fd, struct msghdr *msg, int flags);
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // ssize_t sendmsg(int fd, const struct msghdr *msg, int flags);
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // unsigned int if_nametoindex(const char *ifname);
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  // uid_t geteuid(void);
  geteuid: { parameters: [], result: "u32" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification: sys/socket.h, the same on both systems.
export const AF_INET = 2;
export const AF_ROUTE = 17;
export const AF_LINK = 18;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;

/** A BSD system: its C library, its constants, and the structures that differ. */
export interface Bsd extends Posix, Pick<SocketSystem, "errnoName"> {
  /** Name in messages. */
  readonly system: string;
  /** Remedy where root is required. */
  readonly asRoot: string;
  /** Functions of the C library. */
  readonly functions: Deno.DynamicLibrary<typeof BSD_SYMBOLS>["symbols"];
  /** `int ioctl(int fd, unsigned long request, ... argument)`. */
  ioctl(fd: number, request: bigint, argument: Uint8Array<ArrayBuffer>): number;
  /** Error numbers used by the shared code. */
  readonly Errno: typeof BsdErrno;
  /** sys/socket.h. */
  readonly AF_INET6: number;
  /**
   * Socket options that bind to an interface, on macOS only: IP_BOUND_IF, 25 (bsd/netinet/in.h), and IPV6_BOUND_IF,
   * 125 (bsd/netinet6/in6.h).
   */
  readonly boundInterface: { readonly ipv4: number; readonly ipv6: number } | undefined;
  /** Control messages for local addresses. */
  readonly localControl: LocalControl;
  /** Request that adds an IPv4 address (`struct ifaliasreq`). */
  readonly SIOCAIFADDR: bigint;
  /** Request that adds an IPv6 address (`struct in6_aliasreq`). */
  readonly SIOCAIFADDR_IN6: bigint;
  /** Sizes of structures (bytes). */
  readonly sizes: {
    readonly ifaliasreq: number;
    readonly in6_aliasreq: number;
    readonly rt_msghdr: number;
    readonly sockaddr_dl: number;
  };
  /** Alignment of the addresses in a routing message (bytes). */
  readonly routeAlignment: number;
  /** Location of an interface's counters. */
  readonly counters: {
    /** Operation in the name for sysctl(3): NET_RT_IFLIST or similar (sys/socket.h). */
    readonly list: number;
    /** Offset of `struct if_data` in the result. */
    readonly data: number;
    /** Offset of the counter of packets dropped by the send queue, in the result. */
    readonly queueDrops: number;
    /** Size of that counter (bytes). */
    readonly queueDropsSize: 4 | 8;
  };
}

/** Returns a view of a structure's bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
