/** UDP sockets of macOS and FreeBSD, which move one datagram per call of recvmsg(2) or sendmsg(2). */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { LocalControls } from "../posix/local_control.ts";
import { Messages } from "../posix/messages.ts";
import { PosixUdpSocket, type SocketSystem } from "../posix/udp_socket.ts";
import type { UdpSocketOptions } from "../udp_socket.ts";
import type { Bsd } from "./bsd.ts";
import { Interface } from "./interface.ts";

// Specification: the same on both systems
/** sys/socket.h, netinet/in.h, netinet6/in6.h. */
export const Socket = {
  SOL_SOCKET: 0xffff,
  SO_SNDBUF: 0x1001,
  SO_RCVBUF: 0x1002,
  IPPROTO_IP: 0,
  IPPROTO_IPV6: 41,
  IPV6_V6ONLY: 27,
} as const;

/** A UDP socket of macOS or FreeBSD. */
export class BsdUdpSocket extends PosixUdpSocket {
  readonly #system: Pick<Bsd, "functions" | "errno" | "localControl">;
  #message: Messages | undefined;
  /** Control messages for receiving and sending, if endpoints have local addresses. */
  #received: LocalControls | undefined;
  #sent: LocalControls | undefined;

  constructor(system: Pick<Bsd, "functions" | "errno"> & SocketSystem, options: UdpSocketOptions) {
    super(system, options);
    this.#system = system;
  }

  override attach(pool: PacketPool, maxLength: number): void {
    super.attach(pool, maxLength);
    this.#message = new Messages(1, pool, this.endpointSize);
    if (!this.localAddresses) return;
    this.#received = new LocalControls(1, this.#system.localControl, this.family);
    this.#sent = new LocalControls(1, this.#system.localControl, this.family);
  }

  protected override receiveInto(packets: readonly Packet[], count: number): number {
    const { functions, errno } = this.#system;
    const message = this.#message!;
    for (let i = 0; i < count; i++) {
      message.setPacket(0, packets[i]!, this.room);
      const locals = this.#received;
      message.setControl(0, locals?.addressOf(0) ?? 0, locals?.space ?? 0);
      const length = functions.recvmsg(this.fd, message.headers, 0);
      if (length < 0) return i > 0 ? i : -errno();
      packets[i]!.length = length;
      locals?.read(0, message.controlLengthOf(0), packets[i]!);
    }
    return count;
  }

  protected override sendFrom(packets: readonly Packet[], start: number, end: number): number {
    const { functions, errno } = this.#system;
    const message = this.#message!;
    for (let i = start; i < end; i++) {
      message.setPacket(0, packets[i]!, packets[i]!.length);
      const locals = this.#sent;
      if (locals?.write(0, packets[i]!)) message.setControl(0, locals.addressOf(0), locals.space);
      else message.setControl(0, 0, 0);
      if (functions.sendmsg(this.fd, message.headers, 0) < 0) return i > start ? i - start : -errno();
    }
    return end - start;
  }
}

/** Opens and binds a UDP socket. */
export function openBsdUdpSocket(bsd: Bsd, options: UdpSocketOptions): BsdUdpSocket {
  return new BsdUdpSocket({
    ...bsd,
    SOL_SOCKET: Socket.SOL_SOCKET,
    SEND_BUFFER: [Socket.SO_SNDBUF],
    RECEIVE_BUFFER: [Socket.SO_RCVBUF],
    IPV6_V6ONLY: Socket.IPV6_V6ONLY,
    hasLength: true,
    bindToInterface: (fd, name, family) => bindToInterface(bsd, fd, name, family),
  }, options);
}

function bindToInterface(bsd: Bsd, fd: number, name: string, family: 4 | 6): void {
  const attempt = `use interface "${name}"`;
  const options = bsd.boundInterface;
  if (options === undefined) {
    throw new Deno.errors.NotSupported(
      `Cannot ${attempt}: ${bsd.system} cannot bind a socket to an interface`,
    );
  }
  const { index } = new Interface(bsd, name);
  const [level, option] = family === 4
    ? [Socket.IPPROTO_IP, options.ipv4]
    : [Socket.IPPROTO_IPV6, options.ipv6];
  if (bsd.functions.setsockopt(fd, level, option, Uint32Array.of(index), 4) === 0) return;
  throw bsd.systemError(attempt, "setsockopt", bsd.errno());
}
