/** The functions, constants and structure sizes of macOS or FreeBSD that the shared BSD code uses. */

import type { BsdErrno } from "./errno.ts";
import { type Posix, POSIX_SYMBOLS } from "../posix/libc.ts";
import type { SocketSystem } from "../posix/udp_socket.ts";

/** Functions with the same prototype on both systems. */
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

// Specification: sys/socket.h, the same on both systems
export const AF_ROUTE = 17;
export const AF_LINK = 18;
export const SOCK_RAW = 3;

/** One BSD system: its C library, its constants, and the layout of its structures. */
export interface Bsd extends Posix, Pick<SocketSystem, "AF_INET6" | "localControl"> {
  /** Name of the system, for messages. */
  readonly system: string;
  /** Remedy for operations that require root. */
  readonly asRoot: string;
  readonly functions: Deno.DynamicLibrary<typeof BSD_SYMBOLS>["symbols"];
  /** `int ioctl(int fd, unsigned long request, ... argument)`. */
  ioctl(fd: number, request: bigint, argument: Uint8Array<ArrayBuffer>): number;
  /** Error numbers that the shared code handles. */
  readonly Errno: typeof BsdErrno;
  /**
   * Socket options that bind a socket to an interface: IP_BOUND_IF (bsd/netinet/in.h) and IPV6_BOUND_IF
   * (bsd/netinet6/in6.h) on macOS, `undefined` on FreeBSD.
   */
  readonly boundInterface: { readonly ipv4: number; readonly ipv6: number } | undefined;
  /** ioctl() request that adds an IPv4 address (`struct ifaliasreq`). */
  readonly SIOCAIFADDR: bigint;
  /** ioctl() request that adds an IPv6 address (`struct in6_aliasreq`). */
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
  /** Location of the counters of an interface. */
  readonly counters: {
    /** Operation in the sysctl(3) name: NET_RT_IFLIST or NET_RT_IFLIST2 (sys/socket.h). */
    readonly list: number;
    /** Offset of `struct if_data` in the result. */
    readonly data: number;
    /** Offset in the result of the counter for packets that the send queue dropped. */
    readonly queueDrops: number;
    /** Size of that counter (bytes). */
    readonly queueDropsSize: 4 | 8;
  };
}
