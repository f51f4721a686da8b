/** A UDP socket of Windows that can be kept to one interface, so that a tunnel's own packets do not go into it. */

import { type Address, parseAddress } from "../../lib/address.ts";
import type { Waitable } from "../../lib/core/mod.ts";
import { Family, SockaddrInet } from "./iphlpapi.ts";
import { kernel32 } from "./kernel32.ts";
import { type Row, viewOf, writeSockaddr } from "./rows.ts";
import { Win32, win32Error } from "./win32_error.ts";
import { ws2 } from "./ws2_32.ts";

// Specification
// winsock2.h, ws2def.h
const SOCK_DGRAM = 2;
const IPPROTO_UDP = 17;
const SOL_SOCKET = 0xffff;
const SO_SNDBUF = 0x1001;
const SO_RCVBUF = 0x1002;
const FD_READ = 1;
/** _WSAIOW(IOC_VENDOR, 12), mswsock.h: whether an ICMP error fails a later receive. */
const SIO_UDP_CONNRESET = 0x9800_000c;
const WSA_FLAG_OVERLAPPED = 1;
const WSA_FLAG_NO_HANDLE_INHERIT = 0x80;
const INVALID_SOCKET = -1;
// ws2ipdef.h
const IPPROTO_IP = 0;
const IPPROTO_IPV6 = 41;
const IP_UNICAST_IF = 31;
const IPV6_UNICAST_IF = 31;
/** A sockaddr_in has 16 bytes, a sockaddr_in6 28. */
const SOCKADDR_IN_SIZE = 16;

// Implementation
const BUFFER = 4 * 1024 * 1024;

/** Options for {@linkcode UdpSocket}. */
export interface UdpSocketOptions {
  /** The address that it listens on. @default {"0.0.0.0"} */
  address?: string;
  /** The port that it listens on; 0: one that Windows chooses. @default {0} */
  port?: number;
  /** The index of the interface that packets leave by, whatever the routes say. @default {the routes'} */
  interfaceIndex?: number;
}

/** A UDP socket that never waits. Windows sets its {@linkcode UdpSocket.waitable} when something can be received. */
export class UdpSocket implements Disposable {
  /** The event to wait for. After it, receive until nothing is left. */
  readonly waitable: Waitable;
  /** The port that it listens on. */
  readonly port: number;
  /** Where the last packet came from, or where the next one goes: a SOCKADDR_INET. */
  readonly peer: Row = new Uint8Array(SockaddrInet.Size);
  readonly #ws2 = ws2();
  readonly #socket: bigint;
  readonly #peerSize = new Int32Array(1);
  readonly #sizes: number;
  #closed = false;

  /**
   * Opens and binds it.
   *
   * @throws {Error} Windows', such as {@linkcode DriverError} `WSAEADDRINUSE` when the port is taken.
   */
  constructor(options: UdpSocketOptions = {}) {
    const { address = "0.0.0.0", port = 0, interfaceIndex } = options;
    const parsed = parseAddress(address);
    const family = parsed.family === 4 ? Family.Ipv4 : Family.Ipv6;
    this.#sizes = parsed.family === 4 ? SOCKADDR_IN_SIZE : SockaddrInet.Size;
    const attempt = `listen on UDP ${address} port ${port}`;
    const check = (result: number, operation: string) => {
      if (result !== 0) throw win32Error(attempt, operation, this.#ws2.WSAGetLastError());
    };
    const flags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
    const socket = this.#ws2.WSASocketW(family, SOCK_DGRAM, IPPROTO_UDP, null, 0, flags);
    if (socket === INVALID_SOCKET) throw win32Error(attempt, "WSASocketW", this.#ws2.WSAGetLastError());
    this.#socket = BigInt(socket);
    using undo = new DisposableStack();
    undo.defer(() => this.#ws2.closesocket(this.#socket));
    for (const option of [SO_SNDBUF, SO_RCVBUF]) {
      check(this.#ws2.setsockopt(this.#socket, SOL_SOCKET, option, Int32Array.of(BUFFER), 4), "setsockopt");
    }
    if (interfaceIndex !== undefined) {
      const index = new Uint8Array(4);
      // IPv4's is in network order, IPv6's is not.
      viewOf(index).setUint32(0, interfaceIndex, parsed.family === 6);
      const [level, option] = parsed.family === 4
        ? [IPPROTO_IP, IP_UNICAST_IF]
        : [IPPROTO_IPV6, IPV6_UNICAST_IF];
      check(this.#ws2.setsockopt(this.#socket, level, option, index, 4), "IP_UNICAST_IF");
    }
    // A peer that does not listen is no reason to fail. Where a system does not know this, nothing is lost.
    this.#ws2.WSAIoctl(
      this.#socket,
      SIO_UDP_CONNRESET,
      new Uint8Array(4),
      4,
      null,
      0,
      new Uint32Array(1),
      null,
      null,
    );
    writeSockaddr(this.peer, 0, family, parsed, port);
    check(this.#ws2.bind(this.#socket, this.peer, this.#sizes), "bind");
    this.#peerSize[0] = this.peer.length;
    check(this.#ws2.getsockname(this.#socket, this.peer, this.#peerSize), "getsockname");
    this.port = viewOf(this.peer).getUint16(SockaddrInet.Port);
    const { CreateEventW, CloseHandle, GetLastError } = kernel32();
    this.waitable = CreateEventW(null, 0, 0, null);
    if (this.waitable === 0) throw win32Error(attempt, "CreateEventW", GetLastError());
    undo.defer(() => CloseHandle(BigInt(this.waitable)));
    // It makes the socket one that never waits, too.
    check(this.#ws2.WSAEventSelect(this.#socket, BigInt(this.waitable), FD_READ), "WSAEventSelect");
    undo.move();
  }

  /** Says where {@linkcode UdpSocket.send} sends to. */
  aim(address: Address, port: number): void {
    writeSockaddr(this.peer, 0, address.family === 4 ? Family.Ipv4 : Family.Ipv6, address, port);
  }

  /** Receives a packet to an address in memory; its length, or the error as a negative number: -10035 for none. */
  receive(to: bigint, room: number): number {
    this.#peerSize[0] = this.peer.length;
    const length = this.#ws2.recvfrom(this.#socket, to, room, 0, this.peer, this.#peerSize);
    return length >= 0 ? length : -this.#ws2.WSAGetLastError();
  }

  /** Sends a packet to {@linkcode UdpSocket.peer}; its length, or the error as a negative number. */
  send(from: bigint, length: number): number {
    const sent = this.#ws2.sendto(this.#socket, from, length, 0, this.peer, this.#sizes);
    return sent >= 0 ? sent : -this.#ws2.WSAGetLastError();
  }

  /** Closes it; no wait may look at its event any more. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ws2.closesocket(this.#socket);
    kernel32().CloseHandle(BigInt(this.waitable));
  }
}

/** What {@linkcode UdpSocket.receive} and {@linkcode UdpSocket.send} return when Windows has no packet, or no room. */
export const WOULD_BLOCK: number = -Win32.WSAEWOULDBLOCK;
