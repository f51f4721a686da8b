/** UDP sockets of Windows: one datagram per call of recvfrom or sendto. */

import type { Address } from "../../lib/wire/address.ts";
import type { Packet, PacketBatch, PacketPool, Waitable } from "../../lib/core/mod.ts";
import {
  bindRemedy,
  Endpoint,
  type EndpointBytes,
  formatEndpoint,
  SOCKET_BUFFER,
  type UdpSocket,
  type UdpSocketOptions,
} from "../udp_socket.ts";
import { iphlpapi } from "./iphlpapi.ts";
import { kernel32, wideString } from "./kernel32.ts";
import { PoolAddresses } from "./pool_addresses.ts";
import { familyOf, viewOf, writeSockaddr } from "./rows.ts";
import { awaitUnused } from "./waiter.ts";
import { Win32, win32Error, win32Name } from "./win32_error.ts";
import { ws2 } from "./ws2_32.ts";

// Specification
/** winsock2.h, ws2def.h, ws2ipdef.h */
export const Socket = {
  SOCK_DGRAM: 2,
  IPPROTO_IP: 0,
  IPPROTO_UDP: 17,
  IPPROTO_IPV6: 41,
  SOL_SOCKET: 0xffff,
  SO_REUSEADDR: 4,
  SO_SNDBUF: 0x1001,
  SO_RCVBUF: 0x1002,
  IPV6_V6ONLY: 27,
  IP_UNICAST_IF: 31,
  IPV6_UNICAST_IF: 31,
  FD_READ: 1,
  WSA_FLAG_OVERLAPPED: 1,
  WSA_FLAG_NO_HANDLE_INHERIT: 0x80,
} as const;
/** winsock2.h: `((int)(~SO_REUSEADDR))` */
const SO_EXCLUSIVEADDRUSE = ~Socket.SO_REUSEADDR;
/** mswsock.h: _WSAIOW(IOC_VENDOR, 12); with false, ICMP errors do not fail a later receive. */
const SIO_UDP_CONNRESET = 0x9800_000c;
const INVALID_SOCKET = -1;

// Implementation
/** Maximum ICMP errors of earlier datagrams that one call skips. */
const MAX_ERRORS = 8;
/** Remedy for WSAEACCES: Windows has no privileged ports. */
const TAKEN_REMEDY =
  "another program uses this port exclusively, or Windows has reserved it: use another one";

/** A UDP socket of Windows. Its event is set when a datagram can be received, and again after each recvfrom. */
export class WindowsUdpSocket implements UdpSocket {
  /** IP version. */
  readonly family: 4 | 6;
  /** Local endpoint. */
  readonly local: EndpointBytes;
  /** Resolves when the event is closed. */
  readonly closed: Promise<void>;
  /** Always false: recvfrom does not report the local address. */
  readonly localAddresses = false;
  /** Error after which the socket is unusable. */
  failure: Error | undefined;
  /** Name of the error at which `send` stopped. */
  refusal: string | undefined;

  readonly #ws2 = ws2();
  readonly #kernel32 = kernel32();
  readonly #socket: bigint;
  readonly #event: Waitable;
  /** The event as a parameter of calls. */
  readonly #eventHandle: bigint;
  readonly #settleClosed: () => void;
  readonly #endpointSize: number;
  /** Size of the endpoint, written by recvfrom. */
  readonly #size = new Int32Array(1);
  #pool: PacketPool | undefined;
  #addresses: PoolAddresses | undefined;
  #room = 0;
  #closed = false;

  /** Opens and binds the socket. @throws {Error} as {@linkcode win32Error}, such as `Deno.errors.AddrInUse`. */
  constructor(options: UdpSocketOptions) {
    const { address, port = 0, ipv6Only = false, interface: name } = options;
    const { WSASocketW, WSAGetLastError, setsockopt, bind, closesocket, getsockname, WSAEventSelect } =
      this.#ws2;
    ({ promise: this.closed, resolve: this.#settleClosed } = Promise.withResolvers<void>());
    this.family = address.family;
    this.#endpointSize = address.family === 4 ? Endpoint.Ipv4Size : Endpoint.Ipv6Size;
    const requested = this.endpoint(address, port);
    const attempt = `receive on ${formatEndpoint(requested, address.family)}`;
    const check = (result: number, operation: string) => {
      if (result === 0) return;
      const failed = WSAGetLastError();
      const remedy = failed === Win32.WSAEACCES ? TAKEN_REMEDY : bindRemedy(win32Name(failed));
      throw win32Error(attempt, operation, failed, remedy);
    };
    const flags = Socket.WSA_FLAG_OVERLAPPED | Socket.WSA_FLAG_NO_HANDLE_INHERIT;
    const socket = WSASocketW(familyOf(address), Socket.SOCK_DGRAM, Socket.IPPROTO_UDP, null, 0, flags);
    if (socket === INVALID_SOCKET) throw win32Error(attempt, "WSASocketW", WSAGetLastError());
    this.#socket = BigInt(socket);
    using undo = new DisposableStack();
    undo.defer(() => closesocket(this.#socket));
    const { receiveBuffer = SOCKET_BUFFER, sendBuffer = SOCKET_BUFFER } = options;
    this.#set(Socket.SOL_SOCKET, Socket.SO_RCVBUF, receiveBuffer);
    this.#set(Socket.SOL_SOCKET, Socket.SO_SNDBUF, sendBuffer);
    if (address.family === 6) this.#set(Socket.IPPROTO_IPV6, Socket.IPV6_V6ONLY, ipv6Only ? 1 : 0);
    if (name !== undefined) this.#bindToInterface(name, ipv6Only);
    // A peer that does not listen must not fail the socket. Systems without this option lose nothing.
    const no = new Uint8Array(4);
    this.#ws2.WSAIoctl(this.#socket, SIO_UDP_CONNRESET, no, 4, null, 0, new Uint32Array(1), null, null);
    // Otherwise another program could take over the port.
    check(
      setsockopt(this.#socket, Socket.SOL_SOCKET, SO_EXCLUSIVEADDRUSE, Int32Array.of(1), 4),
      "setsockopt of SO_EXCLUSIVEADDRUSE",
    );
    check(bind(this.#socket, requested, this.#endpointSize), "bind");
    this.local = new Uint8Array(Endpoint.Size);
    check(getsockname(this.#socket, this.local, Int32Array.of(Endpoint.Ipv6Size)), "getsockname");
    const { CreateEventW, CloseHandle, GetLastError } = this.#kernel32;
    // Auto-reset: the wait that it ends resets it.
    this.#event = CreateEventW(null, 0, 0, null);
    if (this.#event === 0) throw win32Error(attempt, "CreateEventW", GetLastError());
    this.#eventHandle = BigInt(this.#event);
    undo.defer(() => CloseHandle(this.#eventHandle));
    // This also makes the socket non-blocking.
    check(WSAEventSelect(this.#socket, this.#eventHandle, Socket.FD_READ), "WSAEventSelect");
    undo.move();
  }

  /** Event that is set when a datagram can be received. */
  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#event;
  }

  /** Sets the pool of received datagrams. */
  attach(pool: PacketPool, longest: number): void {
    this.#pool = pool;
    this.#room = longest + 1;
    this.#addresses = new PoolAddresses(pool);
  }

  /** Returns the endpoint of an address and a port. */
  endpoint(address: Address, port: number): EndpointBytes {
    const bytes = new Uint8Array(Endpoint.Size);
    writeSockaddr(bytes, 0, familyOf(address), address, port);
    return bytes;
  }

  /** Appends received datagrams to the batch. */
  receive(batch: PacketBatch): number {
    const { recvfrom, WSAGetLastError } = this.#ws2;
    const pool = this.#pool!;
    const addresses = this.#addresses!;
    const room = this.#room;
    let count = 0;
    for (let errors = 0; !this.#closed && !batch.full;) {
      const packet = errors < MAX_ERRORS ? pool.take(room) : undefined;
      if (packet === undefined) {
        // The wait reset the event, and only a recvfrom would set it again.
        this.#kernel32.SetEvent(this.#eventHandle);
        break;
      }
      this.#size[0] = Endpoint.Ipv6Size;
      const address = addresses.ofFresh(packet);
      const length = recvfrom(this.#socket, address, room, 0, packet.endpoint, this.#size);
      const failed = length < 0 ? WSAGetLastError() : 0;
      if (failed === 0 || failed === Win32.WSAEMSGSIZE) {
        // A longer datagram is truncated to the room.
        if (failed === 0) packet.length = length;
        packet.hasEndpoint = true;
        batch.push(packet);
        count++;
        continue;
      }
      pool.give(packet);
      if (failed === Win32.WSAEWOULDBLOCK || !this.#survives(failed, "recvfrom")) break;
      errors++;
    }
    return count;
  }

  /** Sends packets until the system refuses one. */
  send(packets: readonly Packet[], start: number, end: number): number {
    const { sendto, WSAGetLastError } = this.#ws2;
    const addresses = this.#addresses!;
    this.refusal = undefined;
    let at = start;
    for (; at < end && !this.#closed; at++) {
      const packet = packets[at]!;
      const { endpoint, length } = packet;
      if (sendto(this.#socket, addresses.of(packet), length, 0, endpoint, this.#endpointSize) >= 0) continue;
      const failed = WSAGetLastError();
      const full = failed === Win32.WSAEWOULDBLOCK || failed === Win32.WSAENOBUFS;
      if (!full && this.#survives(failed, "sendto")) this.refusal = win32Name(failed);
      break;
    }
    return at - start;
  }

  /** Closes the socket, and its event when no wait holds it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ws2.closesocket(this.#socket);
    awaitUnused(this.#event).then(() => {
      this.#kernel32.CloseHandle(this.#eventHandle);
      this.#settleClosed();
    });
  }

  /** Calls {@linkcode WindowsUdpSocket.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Returns true if the socket is still usable; most errors concern one datagram, this or an earlier one. */
  #survives(failed: number, operation: string): boolean {
    if (failed !== Win32.WSAENOTSOCK) return true;
    this.failure ??= win32Error(`use UDP ${formatEndpoint(this.local, this.family)}`, operation, failed);
    return false;
  }

  /** Sets an option; errors are ignored. */
  #set(level: number, option: number, value: number): void {
    this.#ws2.setsockopt(this.#socket, level, option, Int32Array.of(value), 4);
  }

  #bindToInterface(name: string, ipv6Only: boolean): void {
    const index = new Uint8Array(4);
    const { setsockopt, WSAGetLastError } = this.#ws2;
    const set = (level: number, option: number) => {
      if (setsockopt(this.#socket, level, option, index, index.length) === 0) return;
      throw win32Error(`use interface "${name}"`, "setsockopt", WSAGetLastError());
    };
    // The index is in network byte order for IPv4, in host byte order for IPv6.
    const number = interfaceIndex(name);
    if (this.family === 6) {
      viewOf(index).setUint32(0, number, true);
      set(Socket.IPPROTO_IPV6, Socket.IPV6_UNICAST_IF);
      if (ipv6Only) return;
    }
    viewOf(index).setUint32(0, number);
    set(Socket.IPPROTO_IP, Socket.IP_UNICAST_IF);
  }
}

/** Returns the index of an interface by its name in the control panel. */
function interfaceIndex(alias: string): number {
  const { ConvertInterfaceAliasToLuid, ConvertInterfaceLuidToIndex } = iphlpapi();
  const attempt = `use interface "${alias}"`;
  if (ConvertInterfaceAliasToLuid === null || ConvertInterfaceLuidToIndex === null) {
    throw win32Error(attempt, "ConvertInterfaceAliasToLuid", Win32.ERROR_PROC_NOT_FOUND);
  }
  const luid = new BigUint64Array(1);
  const index = new Uint32Array(1);
  if (ConvertInterfaceAliasToLuid(wideString(alias), luid) !== Win32.NO_ERROR) {
    const remedy = "there is no interface of this name: `netsh interface show interface` lists them";
    throw win32Error(attempt, "ConvertInterfaceAliasToLuid", Win32.ERROR_NOT_FOUND, remedy);
  }
  const failed = ConvertInterfaceLuidToIndex(luid, index);
  if (failed !== Win32.NO_ERROR) throw win32Error(attempt, "ConvertInterfaceLuidToIndex", failed);
  return index[0]!;
}
