/**
 * UDP sockets of Linux, macOS and FreeBSD, except for the calls that move datagrams.
 *
 *     receive() ─► free slots ─► receiveInto() ─► batch
 *     send()    ─► packets ────► sendFrom() ────► error ─► refusal
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
/** Maximum datagrams per call. */
export const MAX_DATAGRAMS = 64;
/** Slots for the first call of `receive`, as datagrams often arrive singly. */
const FIRST_DATAGRAMS = 8;
/** Size below which a smaller socket buffer is not tried (bytes). */
const MIN_BUFFER = 64 * 1024;
/** Maximum ICMP errors about earlier datagrams that one `receive` or `send` ignores. */
const MAX_ERRORS = 8;

/** A system's part of a socket: its C library and numbers. */
export interface SocketSystem extends Posix {
  /** Number of AF_INET6. */
  readonly AF_INET6: number;
  /** Number of SOL_SOCKET. */
  readonly SOL_SOCKET: number;
  /** Options that set the send buffer; the first one that succeeds counts. */
  readonly SEND_BUFFER: readonly number[];
  /** Options that set the receive buffer; the first one that succeeds counts. */
  readonly RECEIVE_BUFFER: readonly number[];
  /** Number of IPV6_V6ONLY. */
  readonly IPV6_V6ONLY: number;
  /** Control messages for local addresses. */
  readonly localControl: LocalControl;
  /** True if a sockaddr starts with its length, and the family has one byte. */
  readonly hasLength: boolean;
  /** Error numbers. */
  readonly Errno: Readonly<
    Record<"EAGAIN" | "EBADF" | "ECONNREFUSED" | "EINTR" | "ENOBUFS" | "ENOTSOCK", number>
  >;
  /** Name of an error number. */
  errnoName(errno: number): string;
  /** Binds a socket to an interface. @throws {Error} when the system refuses. */
  keepTo(fd: number, name: string, family: 4 | 6): void;
}

/** A UDP socket whose subclass moves datagrams by `receiveInto` and `sendFrom`. */
export abstract class PosixUdpSocket implements UdpSocket {
  /** Address family: 4 or 6. */
  readonly family: 4 | 6;
  /** Endpoint that it receives on. */
  readonly local: EndpointBytes;
  /** Resolved from the start: the loop handles a wait that still has the descriptor. */
  readonly closed: Promise<void> = Promise.resolve();
  /** Reason that the socket can no longer be used. */
  failure: Error | undefined;
  /** Name of the error at which the last `send` stopped. */
  refusal: string | undefined;

  /** Descriptor of the socket. */
  protected readonly fd: number;
  /** Size of its endpoints' sockaddr (bytes). */
  protected readonly endpointSize: number;
  /** True if endpoints have local addresses. */
  readonly localAddresses: boolean;
  /** Room for each datagram (bytes). */
  protected room = 0;
  readonly #system: SocketSystem;
  readonly #slots: Packet[] = [];
  #pool: PacketPool | undefined;
  #closed = false;

  /** Opens and binds a socket. @throws {Error} with the system's error, such as `Deno.errors.AddrInUse`. */
  constructor(system: SocketSystem, options: UdpSocketOptions) {
    const { address, port = 0, ipv6Only = false, interface: name, localAddresses = false } = options;
    const { functions, errno, systemError, errnoName } = system;
    this.#system = system;
    this.family = address.family;
    this.endpointSize = address.family === 4 ? Endpoint.Ipv4Size : Endpoint.Ipv6Size;
    const requested = this.endpoint(address, port);
    const attempt = `receive on ${formatEndpoint(requested, address.family)}`;
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
    if (functions.bind(this.fd, requested, this.endpointSize) < 0) {
      const failed = errno();
      throw systemError(attempt, "bind", failed, bindRemedy(errnoName(failed)));
    }
    this.local = new Uint8Array(Endpoint.Size);
    if (functions.getsockname(this.fd, this.local, Uint32Array.of(Endpoint.Ipv6Size)) < 0) {
      throw systemError(attempt, "getsockname", errno());
    }
    undo.move();
  }

  /** Descriptor that the loop waits for; `undefined` after close. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.fd;
  }

  /** Sets the pool whose slots receive datagrams. */
  attach(pool: PacketPool, longest: number): void {
    this.#pool = pool;
    this.room = longest + 1;
  }

  /** Encodes an address and a port as an endpoint. */
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

  /** Appends datagrams that have arrived. */
  receive(batch: PacketBatch): number {
    const { EAGAIN, EINTR } = this.#system.Errno;
    const slots = this.#slots;
    let total = 0;
    let errors = 0;
    for (let most = FIRST_DATAGRAMS; !this.#closed;) {
      const count = this.#take(Math.min(most, batch.roomFor(this.room)));
      if (count === 0) break;
      const received = this.receiveInto(slots, count);
      for (let i = 0; i < received; i++) {
        slots[i]!.hasEndpoint = true;
        batch.push(slots[i]!);
      }
      // In reverse, so that the pool hands out the same slots in the same order.
      for (let i = count - 1; i >= Math.max(received, 0); i--) slots[i]!.pool.give(slots[i]!);
      if (received >= 0) {
        total += received;
        if (received < count) break;
        most = MAX_DATAGRAMS;
      } else {
        if (received === -EAGAIN || received !== -EINTR && !this.#survives(-received, "recv")) break;
        if (++errors === MAX_ERRORS) break;
      }
    }
    return total;
  }

  /** Sends packets until the system refuses one; returns the number sent. */
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

  /** Closes the socket. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#system.functions.close(this.fd);
  }

  /** Same as {@linkcode PosixUdpSocket.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Receives datagrams into the first `count` packets and sets their lengths and endpoints. Returns the number of
   * datagrams, which is below `count` only when none is left, or a negative error number.
   */
  protected abstract receiveInto(packets: readonly Packet[], count: number): number;

  /** Sends `packets[start]` to `packets[end - 1]`; returns the number sent, or a negative error number. */
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

  /** Reports whether the socket can still be used: most errors are about a single datagram. */
  #survives(failed: number, operation: string): boolean {
    const { Errno, systemError } = this.#system;
    if (failed !== Errno.EBADF && failed !== Errno.ENOTSOCK) return true;
    this.failure ??= systemError(`use UDP ${formatEndpoint(this.local, this.family)}`, operation, failed);
    return false;
  }

  /** Sets the size of a buffer, halved until the system accepts it: BSD refuses sizes above its limit. */
  #setBuffer(options: readonly number[], size: number): void {
    const set = (bytes: number) =>
      options.some((option) => this.#set(this.#system.SOL_SOCKET, option, bytes));
    for (let bytes = size; !set(bytes) && bytes > MIN_BUFFER;) bytes >>>= 1;
  }

  /** Sets an option; `false` when the system refuses. */
  #set(level: number, option: number, value: number): boolean {
    return this.#system.functions.setsockopt(this.fd, level, option, Int32Array.of(value), 4) === 0;
  }
}
