/** UDP sockets of Linux: up to 64 datagrams a call, by recvmmsg(2) and sendmmsg(2). */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { MOST_DATAGRAMS, PosixUdpSocket, type SocketSystem } from "../posix/udp_socket.ts";
import type { UdpSocketOptions } from "../udp_socket.ts";
import { Errno, errnoName, systemError } from "./errno.ts";
import { cString, errno, libc } from "./libc.ts";

// Specification: sys/socket.h, sys/uio.h; musl's paddings are where glibc's upper halves are
/**
 * ```c
 * struct iovec { void *iov_base; size_t iov_len; };
 * ```
 */
export const Iovec = { base: 0, length: 8, size: 16 } as const;
/**
 * ```c
 * struct mmsghdr {
 *   struct msghdr {
 *     void *msg_name;
 *     socklen_t msg_namelen;
 *     struct iovec *msg_iov;
 *     size_t msg_iovlen;
 *     void *msg_control;
 *     size_t msg_controllen;
 *     int msg_flags;
 *   } msg_hdr;
 *   unsigned int msg_len;
 * };
 * ```
 */
export const Mmsghdr = {
  name: 0,
  nameLength: 8,
  vector: 16,
  vectorLength: 24,
  control: 32,
  controlLength: 40,
  flags: 48,
  length: 56,
  size: 64,
} as const;
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
  SOCK_NONBLOCK: 0o4000,
  SOCK_CLOEXEC: 0o2000000,
  /** linux/if.h, with the zero at the end. */
  IFNAMSIZ: 16,
} as const;

// Implementation: the tables as words of 32 bits
const WORD = 4;
const IOVEC_WORDS = Iovec.size / WORD;
const MMSGHDR_WORDS = Mmsghdr.size / WORD;

/** Headers and vectors of one direction, for as many datagrams as one call moves: each has one vector. */
class Messages {
  /** `struct mmsghdr[64]`. */
  readonly headers = new Uint32Array(MOST_DATAGRAMS * MMSGHDR_WORDS);
  /** `struct iovec[64]`. */
  readonly #vectors = new Uint32Array(MOST_DATAGRAMS * IOVEC_WORDS);
  readonly #base: number;

  constructor(pool: PacketPool, endpointSize: number) {
    this.#base = addressOf(pool.bytes);
    const vectors = addressOf(this.#vectors);
    for (let i = 0; i < MOST_DATAGRAMS; i++) {
      const header = i * MMSGHDR_WORDS;
      setAddress(this.headers, header + Mmsghdr.vector / WORD, vectors + i * Iovec.size);
      this.headers[header + Mmsghdr.nameLength / WORD] = endpointSize;
      this.headers[header + Mmsghdr.vectorLength / WORD] = 1;
    }
  }

  /** Has one of the messages be so many bytes of a packet, and its endpoint. */
  point(message: number, packet: Packet, length: number): void {
    const vector = message * IOVEC_WORDS;
    setAddress(this.#vectors, vector, this.#base + packet.offset);
    this.#vectors[vector + Iovec.length / WORD] = length;
    setAddress(this.headers, message * MMSGHDR_WORDS, this.#base + packet.slotEnd);
  }

  /** How long a message is that has come. */
  lengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.length / WORD]!;
  }
}

function addressOf(memory: BufferSource): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
}

function setAddress(words: Uint32Array, word: number, address: number): void {
  words[word] = address >>> 0;
  words[word + 1] = address / 2 ** 32;
}

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
    this.#incoming = new Messages(pool, this.endpointSize);
    this.#outgoing = new Messages(pool, this.endpointSize);
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
    library: libc(),
    AF_INET6: Socket.AF_INET6,
    SOCK_FLAGS: Socket.SOCK_NONBLOCK | Socket.SOCK_CLOEXEC,
    SOL_SOCKET: Socket.SOL_SOCKET,
    // With CAP_NET_ADMIN, net.core.rmem_max and wmem_max are no limit.
    SEND_BUFFER: [Socket.SO_SNDBUFFORCE, Socket.SO_SNDBUF],
    RECEIVE_BUFFER: [Socket.SO_RCVBUFFORCE, Socket.SO_RCVBUF],
    IPV6_V6ONLY: Socket.IPV6_V6ONLY,
    hasLength: false,
    Errno,
    errno,
    errnoName,
    systemError,
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
