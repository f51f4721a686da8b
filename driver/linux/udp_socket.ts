/** UDP sockets of Linux: up to 64 datagrams a call, by recvmmsg(2) and sendmmsg(2). */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { cString } from "../posix/libc.ts";
import { Messages } from "../posix/messages.ts";
import { MOST_DATAGRAMS, PosixUdpSocket, type SocketSystem } from "../posix/udp_socket.ts";
import type { UdpSocketOptions } from "../udp_socket.ts";
import { Errno, errnoName, systemError } from "./errno.ts";
import { errno, libc, posix } from "./libc.ts";

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

/** A UDP socket of Linux. */
export class LinuxUdpSocket extends PosixUdpSocket {
  readonly #libc = libc();
  #incoming: Messages | undefined;
  #outgoing: Messages | undefined;

  /** Opens and binds it. */
  constructor(options: UdpSocketOptions) {
    super(linux(), options);
  }

  /** Says whose slots datagrams go into. */
  override attach(pool: PacketPool, longest: number): void {
    super.attach(pool, longest);
    this.#incoming = new Messages(MOST_DATAGRAMS, pool, this.endpointSize);
    this.#outgoing = new Messages(MOST_DATAGRAMS, pool, this.endpointSize);
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
    const messages = this.#outgoing!;
    for (let i = start; i < end; i++) messages.point(i - start, packets[i]!, packets[i]!.length);
    const sent = this.#libc.sendmmsg(this.fd, messages.headers, end - start, 0);
    return sent < 0 ? -errno() : sent;
  }
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
  if (device.length > Socket.IFNAMSIZ) throw systemError(attempt, "SO_BINDTODEVICE", Errno.ENODEV);
  if (libc().setsockopt(fd, Socket.SOL_SOCKET, Socket.SO_BINDTODEVICE, device, device.length) === 0) return;
  const failed = errno();
  const remedy = failed === Errno.EPERM
    ? "a kernel before 5.7 wants root or CAP_NET_RAW for it"
    : failed === Errno.ENODEV
    ? "there is no interface of this name"
    : undefined;
  throw systemError(attempt, "SO_BINDTODEVICE", failed, remedy);
}
