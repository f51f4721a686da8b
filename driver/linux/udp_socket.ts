/** UDP sockets of Linux: up to 64 datagrams a call, by recvmmsg(2) and sendmmsg(2) with UDP_SEGMENT. */

import { LARGE_ROOM, type Packet, type PacketPool } from "../../lib/core/mod.ts";
import { cString } from "../posix/libc.ts";
import { Messages } from "../posix/messages.ts";
import { MOST_DATAGRAMS, PosixUdpSocket, type SocketSystem } from "../posix/udp_socket.ts";
import type { UdpSocketOptions } from "../udp_socket.ts";
import { Errno, errnoName, systemError } from "./errno.ts";
import { errno, libc, posix } from "./libc.ts";
import { Segment, Segments } from "./segments.ts";

// Specification
/** asm-generic/socket.h, linux/in6.h, linux/socket.h. */
export const Socket = {
  AF_INET6: 10,
  SOL_SOCKET: 1,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_BINDTODEVICE: 25,
  SO_SNDBUFFORCE: 32,
  SO_RCVBUFFORCE: 33,
  IPV6_V6ONLY: 26,
  /** linux/if.h, with the zero at the end. */
  IFNAMSIZ: 16,
} as const;

// Implementation
const ABSENT = "there is no interface of this name";

/** A UDP socket of Linux. */
export class LinuxUdpSocket extends PosixUdpSocket {
  readonly #libc = libc();
  #incoming: Messages | undefined;
  #outgoing: Segments | undefined;
  /** The longest datagrams that are sent several in a message (bytes). */
  #longestSegment: number;

  /** Opens and binds it. */
  constructor(options: UdpSocketOptions) {
    super(linux(), options);
    const none = Int32Array.of(0);
    const { setsockopt } = this.#libc;
    const cuts = setsockopt(this.fd, Segment.SOL_UDP, Segment.UDP_SEGMENT, none, none.byteLength) === 0;
    this.#longestSegment = cuts ? LARGE_ROOM : 0;
  }

  /** Says whose slots datagrams go into. */
  override attach(pool: PacketPool, longest: number): void {
    super.attach(pool, longest);
    this.#incoming = new Messages(MOST_DATAGRAMS, pool, this.endpointSize);
    this.#outgoing = new Segments(MOST_DATAGRAMS, pool, this.endpointSize, this.family);
  }

  protected override receiveInto(packets: readonly Packet[], count: number): number {
    const messages = this.#incoming!;
    for (let i = 0; i < count; i++) messages.point(i, packets[i]!, this.room);
    const came = this.#libc.recvmmsg(this.fd, messages.headers, count, 0, null);
    if (came < 0) return -errno();
    for (let i = 0; i < came; i++) packets[i]!.length = messages.lengthOf(i);
    return came;
  }

  protected override sendFrom(packets: readonly Packet[], start: number, end: number): number {
    const segments = this.#outgoing!;
    const count = segments.fill(packets, start, end, this.#longestSegment);
    const sent = this.#libc.sendmmsg(this.fd, segments.headers, count, 0);
    if (sent >= 0) return segments.datagrams(sent);
    const failed = errno();
    if (segments.datagrams(1) === 1 || !isAboutSegments(failed)) return -failed;
    // Alone, they are cut into fragments, or sent without the card's help. The road stays as it is.
    this.#longestSegment = failed === Errno.EIO ? 0 : packets[start]!.length - 1;
    return 0;
  }
}

/**
 * Whether the system takes no segments, or none so long (net/ipv4/udp.c, udp_send_skb): the card has no checksums
 * (EIO), or with its headers one is longer than the road's MTU (EINVAL, of newer kernels EMSGSIZE).
 */
function isAboutSegments(failed: number): boolean {
  return failed === Errno.EIO || failed === Errno.EINVAL || failed === Errno.EMSGSIZE;
}

function linux(): SocketSystem {
  return {
    ...posix(),
    AF_INET6: Socket.AF_INET6,
    SOL_SOCKET: Socket.SOL_SOCKET,
    // With CAP_NET_ADMIN, net.core.rmem_max and wmem_max are no limit.
    SEND_BUFFER: [Socket.SO_SNDBUFFORCE, Socket.SO_SNDBUF],
    RECEIVE_BUFFER: [Socket.SO_RCVBUFFORCE, Socket.SO_RCVBUF],
    IPV6_V6ONLY: Socket.IPV6_V6ONLY,
    hasLength: false,
    Errno,
    errnoName,
    keepTo,
  };
}

/** socket(7), SO_BINDTODEVICE: what is sent leaves by the device, and what arrives elsewhere is not received. */
function keepTo(fd: number, name: string): void {
  const device = cString(name);
  const attempt = `use interface "${name}"`;
  // The kernel would take the name's start for all of it.
  if (device.length > Socket.IFNAMSIZ) throw systemError(attempt, "SO_BINDTODEVICE", Errno.ENODEV, ABSENT);
  if (libc().setsockopt(fd, Socket.SOL_SOCKET, Socket.SO_BINDTODEVICE, device, device.length) === 0) return;
  const failed = errno();
  const remedy = failed === Errno.EPERM
    ? "a kernel before 5.7 wants root or CAP_NET_RAW for it"
    : failed === Errno.ENODEV
    ? ABSENT
    : undefined;
  throw systemError(attempt, "SO_BINDTODEVICE", failed, remedy);
}
