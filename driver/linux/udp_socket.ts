/** UDP sockets of Linux: up to 64 datagrams a call, by recvmmsg(2) and sendmmsg(2) with UDP_SEGMENT. */

import { LARGE_ROOM, type Packet, type PacketPool } from "../../lib/core/mod.ts";
import { cString } from "../posix/libc.ts";
import { LocalControls } from "../posix/local_control.ts";
import { Messages } from "../posix/messages.ts";
import { MAX_DATAGRAMS, PosixUdpSocket, type SocketSystem } from "../posix/udp_socket.ts";
import { isFromLocal, type UdpSocketOptions } from "../udp_socket.ts";
import { Errno, errnoName, systemError } from "./errno.ts";
import { SocketErrors } from "./error_queue.ts";
import { errno, libc, posix } from "./libc.ts";
import { LOCAL_CONTROL } from "./local_control.ts";
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
  /** The system's memory for local addresses, if endpoints have them. */
  #locals: LocalControls | undefined;
  #outgoing: Segments | undefined;
  /** ICMP errors, if anyone asks for them. */
  readonly #errors: SocketErrors | undefined;
  /** The longest datagrams that are sent several in a message (bytes). */
  #longestSegment: number;

  /** Opens and binds it. */
  constructor(options: UdpSocketOptions) {
    super(linux(), options);
    const none = Int32Array.of(0);
    const { setsockopt } = this.#libc;
    const cuts = setsockopt(this.fd, Segment.SOL_UDP, Segment.UDP_SEGMENT, none, none.byteLength) === 0;
    this.#longestSegment = cuts ? LARGE_ROOM : 0;
    const { onUnreachable } = options;
    if (onUnreachable !== undefined) this.#errors = new SocketErrors(this.fd, this.family, onUnreachable);
  }

  /** Says whose slots datagrams go into. */
  override attach(pool: PacketPool, longest: number): void {
    super.attach(pool, longest);
    this.#incoming = new Messages(MAX_DATAGRAMS, pool, this.endpointSize);
    const { family, localAddresses } = this;
    this.#outgoing = new Segments(MAX_DATAGRAMS, pool, this.endpointSize, family, localAddresses);
    if (!localAddresses) return;
    const locals = this.#locals = new LocalControls(MAX_DATAGRAMS, LOCAL_CONTROL, family);
    for (let i = 0; i < MAX_DATAGRAMS; i++) this.#incoming.setControl(i, locals.addressOf(i), locals.space);
  }

  protected override receiveInto(packets: readonly Packet[], count: number): number {
    const messages = this.#incoming!;
    const locals = this.#locals;
    for (let i = 0; i < count; i++) {
      messages.point(i, packets[i]!, this.room);
      if (locals !== undefined) messages.resetControl(i, locals.space);
    }
    const came = this.#libc.recvmmsg(this.fd, messages.headers, count, 0, null);
    if (came < 0) return -this.#ownError(errno());
    for (let i = 0; i < came; i++) {
      const packet = packets[i]!;
      packet.length = messages.lengthOf(i);
      locals?.read(i, messages.controlLengthOf(i), packet);
    }
    return came;
  }

  protected override sendFrom(packets: readonly Packet[], start: number, end: number): number {
    const segments = this.#outgoing!;
    const count = segments.fill(packets, start, end, this.#longestSegment);
    const sent = this.#libc.sendmmsg(this.fd, segments.headers, count, 0);
    // An error that ended the call early is lost, but not from its queue.
    if (sent >= 0 && sent < count) this.#errors?.drain();
    if (sent >= 0) return segments.datagrams(sent);
    const failed = this.#ownError(errno());
    if (segments.datagrams(1) === 1 || !isAboutSegments(failed)) return -failed;
    // It may as well be about the local address, which is then left out and not tried again.
    if (failed === Errno.EINVAL && this.localAddresses && isFromLocal(packets[start]!, this.family)) {
      return -failed;
    }
    // Alone, they are cut into fragments, or sent without the card's help. The road stays as it is.
    this.#longestSegment = failed === Errno.EIO ? 0 : packets[start]!.length - 1;
    return 0;
  }

  /**
   * A call's own error. Errors about datagrams sent before fail a call, too: they are taken off their queue, which
   * would otherwise end every wait, and the call is as if it had been interrupted.
   */
  #ownError(failed: number): number {
    if (this.#errors === undefined || failed === Errno.EAGAIN) return failed;
    return this.#errors.drain() > 0 ? Errno.EINTR : failed;
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
    localControl: LOCAL_CONTROL,
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
