/**
 * UDP sockets of Linux, macOS and FreeBSD; subclasses make the system calls that receive and send datagrams.
 *
 *     receive() ─► free slots ─► receiveInto() ─► batch
 *     send()    ─► packets ────► sendFrom() ────► error ─► refusal
 */

import type { Address } from "../../lib/wire/address.ts";
import type { Packet, PacketBatch, PacketPool, Waitable } from "../../lib/core/mod.ts";
import { type Posix, setNonBlocking } from "./libc.ts";
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

// Specification: sys/socket.h and netinet/in.h, the same on all three systems
export const AF_INET = 2;
export const SOCK_DGRAM = 2;
const IPPROTO_UDP = 17;
const IPPROTO_IPV6 = 41;

// Implementation
/** Maximum datagrams per system call. */
export const MAX_DATAGRAMS = 64;
/** Slots for the first system call of a `receive`, because datagrams often arrive singly. */
const FIRST_DATAGRAMS = 8;
/** Smallest socket buffer worth requesting (bytes). */
const MIN_BUFFER = 64 * 1024;
/** Maximum errors that one `receive` or `send` ignores; most are ICMP errors about earlier datagrams. */
const MAX_ERRORS = 8;

/** The C library and the constants of a system, as far as sockets need them. */
export interface SocketSystem extends Posix {
  /** Number of AF_INET6. */
  readonly AF_INET6: number;
  /** Number of SOL_SOCKET. */
  readonly SOL_SOCKET: number;
  /** Options that set the send buffer size, tried in this order until one succeeds. */
  readonly SEND_BUFFER: readonly number[];
  /** Options that set the receive buffer size, tried in this order until one succeeds. */
  readonly RECEIVE_BUFFER: readonly number[];
  /** Number of IPV6_V6ONLY. */
  readonly IPV6_V6ONLY: number;
  /** Control messages for local addresses. */
  readonly localControl: LocalControl;
  /** True if a sockaddr starts with one byte of length and one of family; false if the family has two bytes. */
  readonly hasLength: boolean;
  readonly Errno: Readonly<
    Record<"EAGAIN" | "EBADF" | "ECONNREFUSED" | "EINTR" | "ENOBUFS" | "ENOTSOCK", number>
  >;
  /** Binds a socket to an interface. @throws {Error} when the interface does not exist or the system refuses. */
  bindToInterface(fd: number, name: string, family: 4 | 6): void;
}

/** A UDP socket whose subclass implements `receiveInto` and `sendFrom`. */
export abstract class PosixUdpSocket implements UdpSocket {
  readonly family: 4 | 6;
  readonly local: EndpointBytes;
  readonly localAddresses: boolean;
  /** Already resolved, because the loop itself ends waits for the descriptor. */
  readonly closed: Promise<void> = Promise.resolve();
  failure: Error | undefined;
  refusal: string | undefined;

  /** Descriptor of the socket. */
  protected readonly fd: number;
  /** Size of the sockaddr in each endpoint (bytes). */
  protected readonly endpointSize: number;
  /** Room for each datagram (bytes). */
  protected room = 0;
  readonly #system: SocketSystem;
  readonly #slots: Packet[] = [];
  #pool: PacketPool | undefined;
  #closed = false;

  /**
   * Opens and binds a socket.
   *
   * @throws {Error} when a system call fails: `Deno.errors.AddrInUse` for a port in use, `PermissionDenied` for a port
   * that requires privileges, otherwise mostly a `DriverError`.
   */
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
    setNonBlocking(system, this.fd);
    if (address.family === 6) this.#set(IPPROTO_IPV6, system.IPV6_V6ONLY, ipv6Only ? 1 : 0);
    const { receiveBuffer = SOCKET_BUFFER, sendBuffer = SOCKET_BUFFER } = options;
    this.#setBuffer(system.RECEIVE_BUFFER, receiveBuffer);
    this.#setBuffer(system.SEND_BUFFER, sendBuffer);
    const local = system.localControl[address.family];
    this.localAddresses = localAddresses && this.#set(local.level, local.option, 1);
    if (name !== undefined) system.bindToInterface(this.fd, name, address.family);
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

  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.fd;
  }

  attach(pool: PacketPool, maxLength: number): void {
    this.#pool = pool;
    this.room = maxLength + 1;
  }

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

  receive(batch: PacketBatch): number {
    const { EAGAIN, EINTR } = this.#system.Errno;
    const slots = this.#slots;
    let total = 0;
    let errors = 0;
    for (let max = FIRST_DATAGRAMS; !this.#closed;) {
      const count = this.#takeSlots(Math.min(max, batch.roomFor(this.room)));
      if (count === 0) break;
      const received = this.receiveInto(slots, count);
      for (let i = 0; i < received; i++) {
        slots[i]!.hasEndpoint = true;
        batch.push(slots[i]!);
      }
      // In reverse, so that the next `take` calls return the same slots in the same order.
      for (let i = count - 1; i >= Math.max(received, 0); i--) slots[i]!.pool.give(slots[i]!);
      if (received >= 0) {
        total += received;
        if (received < count) break;
        max = MAX_DATAGRAMS;
      } else {
        if (received === -EAGAIN || received !== -EINTR && !this.#concernsDatagram(-received, "recv")) break;
        if (++errors === MAX_ERRORS) break;
      }
    }
    return total;
  }

  send(packets: readonly Packet[], start: number, end: number): number {
    const { EAGAIN, ECONNREFUSED, EINTR, ENOBUFS } = this.#system.Errno;
    this.refusal = undefined;
    let next = start;
    let errors = 0;
    while (next < end && !this.#closed) {
      const sent = this.sendFrom(packets, next, Math.min(end, next + MAX_DATAGRAMS));
      if (sent >= 0) next += sent;
      else if (sent === -EAGAIN || sent === -ENOBUFS || !this.#concernsDatagram(-sent, "send")) break;
      else if (sent !== -EINTR && sent !== -ECONNREFUSED || ++errors === MAX_ERRORS) {
        this.refusal = this.#system.errnoName(-sent);
        break;
      }
    }
    return next - start;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#system.functions.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Receives datagrams into the first `count` packets and sets their lengths and endpoints. Returns the number of
   * datagrams, or a negative error number. Fewer than `count` means that the socket has no more.
   */
  protected abstract receiveInto(packets: readonly Packet[], count: number): number;

  /** Sends `packets[start]` to `packets[end - 1]`; returns the number sent, or a negative error number. */
  protected abstract sendFrom(packets: readonly Packet[], start: number, end: number): number;

  /** Takes up to `max` slots from the pool; returns their number. */
  #takeSlots(max: number): number {
    for (let i = 0; i < max; i++) {
      const packet = this.#pool!.take(this.room);
      if (packet === undefined) return i;
      this.#slots[i] = packet;
    }
    return max;
  }

  /** Reports whether the error concerns a single datagram; otherwise sets `failure`. */
  #concernsDatagram(failed: number, operation: string): boolean {
    const { Errno, systemError } = this.#system;
    if (failed !== Errno.EBADF && failed !== Errno.ENOTSOCK) return true;
    this.failure ??= systemError(`use UDP ${formatEndpoint(this.local, this.family)}`, operation, failed);
    return false;
  }

  /** Sets the size of a buffer, halved until the system accepts it, because BSD refuses sizes above its limit. */
  #setBuffer(options: readonly number[], size: number): void {
    const set = (bytes: number) =>
      options.some((option) => this.#set(this.#system.SOL_SOCKET, option, bytes));
    for (let bytes = size; !set(bytes) && bytes > MIN_BUFFER;) bytes >>>= 1;
  }

  /** Sets an option; returns false when the system refuses. */
  #set(level: number, option: number, value: number): boolean {
    return this.#system.functions.setsockopt(this.fd, level, option, Int32Array.of(value), 4) === 0;
  }
}
