/**
 * What UDP sockets of Linux and of BSD have in common: all but the calls that move datagrams.
 *
 *     receive() ─► free slots ─► receiveInto() ─► batch
 *     send()    ─► packets ─────► sendFrom() ───► what the system refuses ─► refusal
 */

import type { Address } from "../../lib/wire/address.ts";
import type { Packet, PacketBatch, PacketPool, Waitable } from "../../lib/core/mod.ts";
import { guard, type Posix } from "./libc.ts";
import type { LocalControl } from "./local_control.ts";
import {
  bindRemedy,
  Endpoint,
  type EndpointBytes,
  formatEndpoint,
  SOCKET_BUFFER,
  type UdpSocket,
  type UdpSocketOptions,
} from "../udp_socket.ts";

// Specification: the same on Linux and BSD
const AF_INET = 2;
const SOCK_DGRAM = 2;
const IPPROTO_UDP = 17;
const IPPROTO_IPV6 = 41;

// Implementation
/** The most datagrams that move in one call. */
export const MAX_DATAGRAMS = 64;
/** How many slots the first call of several gets: pings, and their answers, come one by one. */
const FIRST_DATAGRAMS = 8;
/** What every system has for a buffer anyway (bytes). */
const MIN_BUFFER = 64 * 1024;
/** Errors of datagrams sent before (ICMP) that one call passes over. */
const MAX_ERRORS = 8;

/** A system's part of a socket: its library, its numbers and its words. */
export interface SocketSystem extends Posix {
  /** The number of AF_INET6. */
  readonly AF_INET6: number;
  /** The number of SOL_SOCKET. */
  readonly SOL_SOCKET: number;
  /** The options that set the buffer for sending, of which the first one that is allowed counts. */
  readonly SEND_BUFFER: readonly number[];
  /** The same for receiving. */
  readonly RECEIVE_BUFFER: readonly number[];
  /** The number of IPV6_V6ONLY. */
  readonly IPV6_V6ONLY: number;
  /** The control messages for local addresses. */
  readonly localControl: LocalControl;
  /** Whether a sockaddr starts with its length, and the family has one byte. */
  readonly hasLength: boolean;
  /** Its error numbers. */
  readonly Errno: Readonly<
    Record<"EAGAIN" | "EBADF" | "ECONNREFUSED" | "EINTR" | "ENOBUFS" | "ENOTSOCK", number>
  >;
  /** The name of an error number. */
  errnoName(errno: number): string;
  /** Keeps a socket to an interface. @throws {Error} when it cannot. */
  keepTo(fd: number, name: string, family: 4 | 6): void;
}

/** A socket whose system moves datagrams by `receiveInto` and `sendFrom`. */
export abstract class PosixUdpSocket implements UdpSocket {
  /** 4 or 6. */
  readonly family: 4 | 6;
  /** Where it receives. */
  readonly local: EndpointBytes;
  /** At once: the loop sees to a wait that still looks at it. */
  readonly closed: Promise<void> = Promise.resolve();
  /** Why it can be used no longer. */
  failure: Error | undefined;
  /** What the system said when `send` stopped. */
  refusal: string | undefined;

  /** Its descriptor. */
  protected readonly fd: number;
  /** The bytes of its endpoints, as far as they count. */
  protected readonly endpointSize: number;
  /** True if endpoints have local addresses. */
  readonly localAddresses: boolean;
  /** How many bytes of a datagram are taken. */
  protected room = 0;
  readonly #system: SocketSystem;
  readonly #slots: Packet[] = [];
  #pool: PacketPool | undefined;
  #closed = false;

  /** Opens and binds it. @throws {Error} the system's, such as `Deno.errors.AddrInUse`. */
  constructor(system: SocketSystem, options: UdpSocketOptions) {
    const { address, port = 0, ipv6Only = false, interface: name, localAddresses = false } = options;
    const { functions, errno, systemError, errnoName } = system;
    this.#system = system;
    this.family = address.family;
    this.endpointSize = address.family === 4 ? Endpoint.Ipv4Size : Endpoint.Ipv6Size;
    const asked = this.endpoint(address, port);
    const attempt = `receive on ${formatEndpoint(asked, address.family)}`;
    this.fd = functions.socket(address.family === 4 ? AF_INET : system.AF_INET6, SOCK_DGRAM, IPPROTO_UDP);
    if (this.fd < 0) throw systemError(attempt, "socket", errno());
    using undo = new DisposableStack();
    undo.defer(() => functions.close(this.fd));
    guard(system, this.fd);
    if (address.family === 6) this.#set(IPPROTO_IPV6, system.IPV6_V6ONLY, ipv6Only ? 1 : 0);
    const { receiveBuffer = SOCKET_BUFFER, sendBuffer = SOCKET_BUFFER } = options;
    this.#setBuffer(system.RECEIVE_BUFFER, receiveBuffer);
    this.#setBuffer(system.SEND_BUFFER, sendBuffer);
    const local = system.localControl[address.family];
    this.localAddresses = localAddresses && this.#set(local.level, local.option, 1);
    if (name !== undefined) system.keepTo(this.fd, name, address.family);
    if (functions.bind(this.fd, asked, this.endpointSize) < 0) {
      const failed = errno();
      throw systemError(attempt, "bind", failed, bindRemedy(errnoName(failed)));
    }
    this.local = new Uint8Array(Endpoint.Size);
    if (functions.getsockname(this.fd, this.local, Uint32Array.of(Endpoint.Ipv6Size)) < 0) {
      throw systemError(attempt, "getsockname", errno());
    }
    undo.move();
  }

  /** Its descriptor. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.fd;
  }

  /** Says whose slots datagrams go into. */
  attach(pool: PacketPool, longest: number): void {
    this.#pool = pool;
    this.room = longest + 1;
  }

  /** The endpoint of an address and a port. */
  endpoint(address: Address, port: number): EndpointBytes {
    const { hasLength, AF_INET6 } = this.#system;
    const bytes = new Uint8Array(Endpoint.Size);
    const family = address.family === 4 ? AF_INET : AF_INET6;
    if (hasLength) bytes.set([address.family === 4 ? Endpoint.Ipv4Size : Endpoint.Ipv6Size, family]);
    else new DataView(bytes.buffer).setUint16(Endpoint.Family, family, true);
    new DataView(bytes.buffer).setUint16(Endpoint.Port, port);
    bytes.set(address.bytes, address.family === 4 ? Endpoint.Ipv4Address : Endpoint.Ipv6Address);
    return bytes;
  }

  /** Appends what has arrived. */
  receive(batch: PacketBatch): number {
    const { EAGAIN, EINTR } = this.#system.Errno;
    const slots = this.#slots;
    let total = 0;
    let errors = 0;
    for (let most = FIRST_DATAGRAMS; !this.#closed;) {
      const count = this.#take(Math.min(most, batch.roomFor(this.room)));
      if (count === 0) break;
      const came = this.receiveInto(slots, count);
      for (let i = 0; i < came; i++) {
        slots[i]!.hasEndpoint = true;
        batch.push(slots[i]!);
      }
      // Backwards: the slot that was taken first is the first one again.
      for (let i = count - 1; i >= Math.max(came, 0); i--) slots[i]!.pool.give(slots[i]!);
      if (came >= 0) {
        total += came;
        if (came < count) break;
        most = MAX_DATAGRAMS;
      } else {
        if (came === -EAGAIN || came !== -EINTR && !this.#survives(-came, "recv")) break;
        if (++errors === MAX_ERRORS) break;
      }
    }
    return total;
  }

  /** Sends packets until the system refuses one. */
  send(packets: readonly Packet[], start: number, end: number): number {
    const { EAGAIN, ECONNREFUSED, EINTR, ENOBUFS } = this.#system.Errno;
    this.refusal = undefined;
    let at = start;
    let errors = 0;
    while (at < end && !this.#closed) {
      const sent = this.sendFrom(packets, at, Math.min(end, at + MAX_DATAGRAMS));
      if (sent >= 0) at += sent;
      else if (sent === -EAGAIN || sent === -ENOBUFS || !this.#survives(-sent, "send")) break;
      else if (sent !== -EINTR && sent !== -ECONNREFUSED || ++errors === MAX_ERRORS) {
        this.refusal = this.#system.errnoName(-sent);
        break;
      }
    }
    return at - start;
  }

  /** Closes it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#system.functions.close(this.fd);
  }

  /** The same as {@linkcode PosixUdpSocket.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Receives datagrams into the first `count` of these packets, with their lengths and endpoints; how many came, or
   * an error number below 0. Fewer than asked for: no more are there.
   */
  protected abstract receiveInto(packets: readonly Packet[], count: number): number;

  /** Sends `packets[start]` to `packets[end - 1]`; how many were sent, or an error number below 0. */
  protected abstract sendFrom(packets: readonly Packet[], start: number, end: number): number;

  #take(most: number): number {
    const pool = this.#pool!;
    let count = 0;
    for (; count < most; count++) {
      const packet = pool.take(this.room);
      if (packet === undefined) break;
      this.#slots[count] = packet;
    }
    return count;
  }

  /** Whether the socket can still be used: errors are mostly about one datagram, or one sent before. */
  #survives(failed: number, operation: string): boolean {
    const { Errno, systemError } = this.#system;
    if (failed !== Errno.EBADF && failed !== Errno.ENOTSOCK) return true;
    this.failure ??= systemError(`use UDP ${formatEndpoint(this.local, this.family)}`, operation, failed);
    return false;
  }

  /** Sets a buffer's size, or as much of it as the system allows: BSD refuses what is too much. */
  #setBuffer(options: readonly number[], size: number): void {
    const set = (bytes: number) =>
      options.some((option) => this.#set(this.#system.SOL_SOCKET, option, bytes));
    for (let bytes = size; !set(bytes) && bytes > MIN_BUFFER;) bytes >>>= 1;
  }

  /** Sets an option, where the system allows it; returns whether it does. */
  #set(level: number, option: number, value: number): boolean {
    return this.#system.functions.setsockopt(this.fd, level, option, Int32Array.of(value), 4) === 0;
  }
}
