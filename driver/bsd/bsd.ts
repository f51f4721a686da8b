/** What macOS and FreeBSD have in different places: what the code for both asks of a system. */

import type { BsdErrno } from "./errno.ts";
import { type Posix, POSIX_SYMBOLS } from "../posix/libc.ts";
import type { LocalControl } from "../posix/local_control.ts";
import type { SocketSystem } from "../posix/udp_socket.ts";

/** The functions that are called in the same way on both. */
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

// Specification: sys/socket.h; these are the same on both.
export const AF_INET = 2;
export const AF_ROUTE = 17;
export const AF_LINK = 18;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;

/** A system: its C library, its numbers, and its structures as far as they differ. */
export interface Bsd extends Posix, Pick<SocketSystem, "errnoName"> {
  /** What messages call it. */
  readonly system: string;
  /** What to do where root is asked for. */
  readonly asRoot: string;
  /** The functions. */
  readonly functions: Deno.DynamicLibrary<typeof BSD_SYMBOLS>["symbols"];
  /** `int ioctl(int fd, unsigned long request, ... argument)`. */
  ioctl(fd: number, request: bigint, argument: Uint8Array<ArrayBuffer>): number;
  /** The numbers of the errors that the shared code knows. */
  readonly Errno: typeof BsdErrno;
  /** sys/socket.h. */
  readonly AF_INET6: number;
  /**
   * The options that keep a socket to an interface, which macOS alone has: IP_BOUND_IF, 25 (bsd/netinet/in.h), and
   * IPV6_BOUND_IF, 125 (bsd/netinet6/in6.h).
   */
  readonly boundInterface: { readonly ipv4: number; readonly ipv6: number } | undefined;
  /** The control messages for local addresses. */
  readonly localControl: LocalControl;
  /** Adds an address, by `struct ifaliasreq`. */
  readonly SIOCAIFADDR: bigint;
  /** Adds an IPv6 address, by `struct in6_aliasreq`. */
  readonly SIOCAIFADDR_IN6: bigint;
  /** The sizes of structures (bytes). */
  readonly sizes: {
    readonly ifaliasreq: number;
    readonly in6_aliasreq: number;
    readonly rt_msghdr: number;
    readonly sockaddr_dl: number;
  };
  /** What the length of each address in a routing message is rounded up to (bytes). */
  readonly routeAlignment: number;
  /** Where the system's counters of an interface are. */
  readonly counters: {
    /** The last but one number of sysctl(3)'s name: sys/socket.h, NET_RT_IFLIST and its kin. */
    readonly list: number;
    /** Where `struct if_data` starts in the answer. */
    readonly data: number;
    /** Where the packets that the sending queue dropped are counted, in that answer. */
    readonly queueDrops: number;
    /** The bytes of that counter. */
    readonly queueDropsSize: 4 | 8;
  };
}

/** A view of a structure's bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
