/** The UDP socket of Windows: each call of recvfrom or sendto moves one datagram. */

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
import { familyOf, writeSockaddr } from "./rows.ts";
import { awaitUnused } from "./waiter.ts";
import { Win32, win32Error, win32Name } from "./win32_error.ts";
import { ws2 } from "./ws2_32.ts";
import { viewOf } from "../native_memory.ts";

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
/** mswsock.h: _WSAIOW(IOC_VENDOR, 12). False: ICMP errors about sent datagrams do not make recvfrom fail. */
const SIO_UDP_CONNRESET = 0x9800_000c;
const INVALID_SOCKET = -1;

// Implementation
/** Errors, mostly ICMP errors about earlier datagrams, at which one `receive` stops. */
const MAX_ERRORS = 8;
/** Remedy for WSAEACCES, which on Windows does not mean a privileged port. */
const PORT_TAKEN_REMEDY =
  "another program uses this port exclusively, or Windows has reserved it: use another one";

/** A UDP socket whose event is set when a datagram arrives, and after a recvfrom that leaves datagrams behind. */
export class WindowsUdpSocket implements UdpSocket {
  readonly family: 4 | 6;
  readonly local: EndpointBytes;
  /** Resolves when no wait includes the event any longer and the event is closed. */
  readonly closed: Promise<void>;
  /** Always false: recvfrom does not report local addresses. */
  readonly localAddresses = false;
  failure: Error | undefined;
  refusal: string | undefined;

  readonly #ws2 = ws2();
  readonly #kernel32 = kernel32();
  readonly #socket: bigint;
  readonly #event: Waitable;
  /** The same event as bigint, for calls. */
  readonly #eventHandle: bigint;
  readonly #resolveClosed: () => void;
  readonly #endpointSize: number;
  /** Size of the sender's address: recvfrom reads and writes it. */
  readonly #size = new Int32Array(1);
  #pool: PacketPool | undefined;
  #addresses: PoolAddresses | undefined;
  #room = 0;
  #closed = false;

  /**
   * Opens and binds a socket.
   *
   * @throws {Error} when a call fails: `Deno.errors.AddrInUse` for a port in use, `PermissionDenied` for one that
   * Windows or another program reserves, `NotFound` for an unknown interface, otherwise mostly a `DriverError`.
   */
  constructor(options: UdpSocketOptions) {
    const { address, port = 0, ipv6Only = false, interface: name } = options;
    const { WSASocketW, WSAGetLastError, setsockopt, bind, closesocket, getsockname, WSAEventSelect } =
      this.#ws2;
    ({ promise: this.closed, resolve: this.#resolveClosed } = Promise.withResolvers<void>());
    this.family = address.family;
    this.#endpointSize = address.family === 4 ? Endpoint.Ipv4Size : Endpoint.Ipv6Size;
    const requested = this.endpoint(address, port);
    const attempt = `receive on ${formatEndpoint(requested, address.family)}`;
    const check = (result: number, operation: string) => {
      if (result === 0) return;
      const failed = WSAGetLastError();
      const remedy = failed === Win32.WSAEACCES ? PORT_TAKEN_REMEDY : bindRemedy(win32Name(failed));
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
    // The result is ignored: without this option, `receive` skips the errors.
    const no = new Uint8Array(4);
    this.#ws2.WSAIoctl(this.#socket, SIO_UDP_CONNRESET, no, 4, null, 0, new Uint32Array(1), null, null);
    // Otherwise another program could bind the same port with SO_REUSEADDR.
    check(
      setsockopt(this.#socket, Socket.SOL_SOCKET, SO_EXCLUSIVEADDRUSE, Int32Array.of(1), 4),
      "setsockopt of SO_EXCLUSIVEADDRUSE",
    );
    check(bind(this.#socket, requested, this.#endpointSize), "bind");
    this.local = new Uint8Array(Endpoint.Size);
    check(getsockname(this.#socket, this.local, Int32Array.of(Endpoint.Ipv6Size)), "getsockname");
    const { CreateEventW, CloseHandle, GetLastError } = this.#kernel32;
    // Auto-reset: a wait that ends because of the event resets it.
    this.#event = CreateEventW(null, 0, 0, null);
    if (this.#event === 0) throw win32Error(attempt, "CreateEventW", GetLastError());
    this.#eventHandle = BigInt(this.#event);
    undo.defer(() => CloseHandle(this.#eventHandle));
    // WSAEventSelect also makes the socket non-blocking.
    check(WSAEventSelect(this.#socket, this.#eventHandle, Socket.FD_READ), "WSAEventSelect");
    undo.move();
  }

  get waitable(): Waitable | undefined {
    return this.#closed ? undefined : this.#event;
  }

  attach(pool: PacketPool, maxLength: number): void {
    this.#pool = pool;
    this.#room = maxLength + 1;
    this.#addresses = new PoolAddresses(pool);
  }

  endpoint(address: Address, port: number): EndpointBytes {
    const bytes = new Uint8Array(Endpoint.Size);
    writeSockaddr(bytes, 0, familyOf(address), address, port);
    return bytes;
  }

  receive(batch: PacketBatch): number {
    const { recvfrom, WSAGetLastError } = this.#ws2;
    const pool = this.#pool!;
    const addresses = this.#addresses!;
    const room = this.#room;
    let count = 0;
    for (let errors = 0; !this.#closed && !batch.full;) {
      const packet = errors < MAX_ERRORS ? pool.take(room) : undefined;
      if (packet === undefined) {
        // The wait reset the event, and Windows sets it again only after a recvfrom.
        this.#kernel32.SetEvent(this.#eventHandle);
        break;
      }
      this.#size[0] = Endpoint.Ipv6Size;
      const address = addresses.ofFresh(packet);
      const length = recvfrom(this.#socket, address, room, 0, packet.endpoint, this.#size);
      const failed = length < 0 ? WSAGetLastError() : 0;
      if (failed === 0 || failed === Win32.WSAEMSGSIZE) {
        // WSAEMSGSIZE: the datagram was truncated to `room`, which is the packet's length already.
        if (failed === 0) packet.length = length;
        packet.hasEndpoint = true;
        batch.push(packet);
        count++;
        continue;
      }
      pool.give(packet);
      if (failed === Win32.WSAEWOULDBLOCK || !this.#concernsDatagram(failed, "recvfrom")) break;
      errors++;
    }
    return count;
  }

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
      if (!full && this.#concernsDatagram(failed, "sendto")) this.refusal = win32Name(failed);
      break;
    }
    return at - start;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ws2.closesocket(this.#socket);
    awaitUnused(this.#event).then(() => {
      this.#kernel32.CloseHandle(this.#eventHandle);
      this.#resolveClosed();
    });
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Reports whether the error concerns a single datagram; otherwise sets `failure`. */
  #concernsDatagram(failed: number, operation: string): boolean {
    if (failed !== Win32.WSAENOTSOCK) return true;
    this.failure ??= win32Error(`use UDP ${formatEndpoint(this.local, this.family)}`, operation, failed);
    return false;
  }

  /** Sets an option if Windows accepts it. */
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
    // IPV6_UNICAST_IF takes the index in host byte order, IP_UNICAST_IF in network byte order.
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

/** Returns the index of an interface by its alias, the name that the user sees. */
function interfaceIndex(alias: string): number {
  const { ConvertInterfaceAliasToLuid, ConvertInterfaceLuidToIndex } = iphlpapi();
  const attempt = `use interface "${alias}"`;
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
