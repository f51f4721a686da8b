/** UDP sockets on Linux: up to 64 messages per call, with recvmmsg(2), sendmmsg(2) and UDP_SEGMENT. */

import { LARGE_ROOM, type Packet, type PacketPool } from "../../lib/core/mod.ts";
import { cString } from "../posix/libc.ts";
import { LocalControls } from "../posix/local_control.ts";
import { Messages } from "../posix/messages.ts";
import { MAX_DATAGRAMS, PosixUdpSocket, type SocketSystem } from "../posix/udp_socket.ts";
import { isFromLocal, type UdpSocketOptions } from "../udp_socket.ts";
import { Errno, systemError } from "./errno.ts";
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
  /** linux/if.h; includes the terminating NUL. */
  IFNAMSIZ: 16,
} as const;

// Implementation
const ABSENT = "there is no interface of this name";

/** A Linux UDP socket. */
export class LinuxUdpSocket extends PosixUdpSocket {
  readonly #libc = libc();
  #incoming: Messages | undefined;
  /** Received control messages, if the socket uses local addresses. */
  #locals: LocalControls | undefined;
  #outgoing: Segments | undefined;
  /** Error queue, if the caller wants ICMP errors. */
  readonly #errors: SocketErrors | undefined;
  /** Maximum segment size for UDP_SEGMENT (bytes); 0 if it cannot be used. */
  #maxSegment: number;

  /** Opens and binds a socket. */
  constructor(options: UdpSocketOptions) {
    super(linux(), options);
    const none = Int32Array.of(0);
    const { setsockopt } = this.#libc;
    const segments = setsockopt(this.fd, Segment.SOL_UDP, Segment.UDP_SEGMENT, none, none.byteLength) === 0;
    this.#maxSegment = segments ? LARGE_ROOM : 0;
    const { onUnreachable } = options;
    if (onUnreachable !== undefined) this.#errors = new SocketErrors(this.fd, this.family, onUnreachable);
  }

  /** Sets the pool whose slots receive datagrams. */
  override attach(pool: PacketPool, maxLength: number): void {
    super.attach(pool, maxLength);
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
      messages.setPacket(i, packets[i]!, this.room);
      if (locals !== undefined) messages.resetControl(i, locals.space);
    }
    const received = this.#libc.recvmmsg(this.fd, messages.headers, count, 0, null);
    if (received < 0) return -this.#ownError(errno());
    for (let i = 0; i < received; i++) {
      const packet = packets[i]!;
      packet.length = messages.lengthOf(i);
      locals?.read(i, messages.controlLengthOf(i), packet);
    }
    return received;
  }

  protected override sendFrom(packets: readonly Packet[], start: number, end: number): number {
    const segments = this.#outgoing!;
    const count = segments.fill(packets, start, end, this.#maxSegment);
    const sent = this.#libc.sendmmsg(this.fd, segments.headers, count, 0);
    // sendmmsg does not return the error that ended it early. If that was an ICMP error, it is in the error queue.
    if (sent >= 0 && sent < count) this.#errors?.drain();
    if (sent >= 0) return segments.datagrams(sent);
    const failed = this.#ownError(errno());
    if (segments.datagrams(1) === 1 || !isSegmentError(failed)) return -failed;
    // EINVAL may also mean that the local address is invalid; the caller then sends without it.
    if (failed === Errno.EINVAL && this.localAddresses && isFromLocal(packets[start]!, this.family)) {
      return -failed;
    }
    // Unsegmented datagrams can be fragmented and need no checksum offload. The path and the network card are not
    // expected to change, so that later datagrams are limited as well.
    this.#maxSegment = failed === Errno.EIO ? 0 : packets[start]!.length - 1;
    return 0;
  }

  /**
   * Returns the error of a failed call, or EINTR if an ICMP error about an earlier datagram may be the cause. The error
   * queue is emptied, as it would otherwise end every wait at once.
   */
  #ownError(failed: number): number {
    if (this.#errors === undefined || failed === Errno.EAGAIN) return failed;
    return this.#errors.drain() > 0 ? Errno.EINTR : failed;
  }
}

/**
 * Returns true for the errors of UDP_SEGMENT (udp_send_skb(), net/ipv4/udp.c): the network card has no checksum offload
 * (EIO), or a segment with its headers exceeds the path MTU (EINVAL, in newer kernels EMSGSIZE).
 */
function isSegmentError(failed: number): boolean {
  return failed === Errno.EIO || failed === Errno.EINVAL || failed === Errno.EMSGSIZE;
}

function linux(): SocketSystem {
  return {
    ...posix(),
    AF_INET6: Socket.AF_INET6,
    SOL_SOCKET: Socket.SOL_SOCKET,
    // With CAP_NET_ADMIN, net.core.rmem_max and wmem_max do not apply.
    SEND_BUFFER: [Socket.SO_SNDBUFFORCE, Socket.SO_SNDBUF],
    RECEIVE_BUFFER: [Socket.SO_RCVBUFFORCE, Socket.SO_RCVBUF],
    IPV6_V6ONLY: Socket.IPV6_V6ONLY,
    localControl: LOCAL_CONTROL,
    hasLength: false,
    Errno,
    bindToInterface,
  };
}

/** Binds a socket to an interface, which all its datagrams then use in both directions (SO_BINDTODEVICE, socket(7)). */
function bindToInterface(fd: number, name: string): void {
  const device = cString(name);
  const attempt = `use interface "${name}"`;
  // The kernel would truncate a longer name.
  if (device.length > Socket.IFNAMSIZ) throw systemError(attempt, "SO_BINDTODEVICE", Errno.ENODEV, ABSENT);
  if (libc().setsockopt(fd, Socket.SOL_SOCKET, Socket.SO_BINDTODEVICE, device, device.length) === 0) return;
  const failed = errno();
  const remedy = failed === Errno.EPERM
    ? "run as root or with CAP_NET_RAW, which Linux before 5.7 requires"
    : failed === Errno.ENODEV
    ? ABSENT
    : undefined;
  throw systemError(attempt, "SO_BINDTODEVICE", failed, remedy);
}
