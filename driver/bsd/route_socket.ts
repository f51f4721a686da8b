/** Routing sockets (route(4)), which query and change routes and report changes of interfaces. */

import { type Address, formatCidr, Prefix } from "../../lib/wire/address.ts";
import { setNonBlocking } from "../posix/libc.ts";
import { AF_ROUTE, type Bsd, SOCK_RAW } from "./bsd.ts";
import { bitsOf, linkSockaddr, netmask, sockaddr } from "./sockaddr.ts";
import { viewOf } from "../native_memory.ts";

// Specification: net/route.h, net/if.h
export const MessageType = { RTM_ADD: 1, RTM_DELETE: 2, RTM_GET: 4, RTM_IFINFO: 14 } as const;
/** Types of messages about routes. */
type RouteMessageType = typeof MessageType["RTM_ADD" | "RTM_DELETE" | "RTM_GET"];
export const RTM_VERSION = 5;
/** Route flags (RTF_). */
export const RouteFlag = { Up: 1, Gateway: 2, Host: 4, Static: 0x800 } as const;
/** Bits of the addresses that follow the header (RTA_), in ascending order. */
export const RouteAddress = { Destination: 1, Gateway: 2, Netmask: 4, Interface: 0x10 } as const;
/**
 * `struct rt_msghdr { u16 rtm_msglen; u8 rtm_version, rtm_type; u16 rtm_index; int rtm_flags, rtm_addrs; pid_t rtm_pid;
 * int rtm_seq, rtm_errno; ... }`; the other members differ between the systems and stay zero.
 */
export const RtMsghdr = {
  Length: 0,
  Version: 2,
  Type: 3,
  Index: 4,
  Flags: 8,
  Addresses: 12,
  Pid: 16,
  Sequence: 20,
} as const;
/**
 * `struct if_msghdr { u16 ifm_msglen; u8 ifm_version, ifm_type; int ifm_addrs, ifm_flags; u16 ifm_index;
 * struct if_data ifm_data; }`; the MTU has the same offset on both systems.
 */
export const IfMsghdr = { Length: 0, Type: 3, Flags: 8, Index: 12, Mtu: 24, MinSize: 28 } as const;
// poll.h
const POLLIN = 1;

// Implementation
const MESSAGE_ROOM = 4096;
const MESSAGE_ROOM_64 = BigInt(MESSAGE_ROOM);
/** Timeout for the reply to RTM_GET (milliseconds). */
const REPLY_TIMEOUT = 1000;

/** A route through an interface, to a destination and optionally via a next hop. */
export interface InterfaceRoute {
  readonly to: Prefix;
  readonly via?: Address | undefined;
}

let lastSequence = 0;

/** Builds a routing message for a route via its next hop or, without one, via the interface with this index. */
export function routeMessage(
  bsd: Bsd,
  type: RouteMessageType,
  { to, via }: InterfaceRoute,
  index: number,
): Uint8Array<ArrayBuffer> {
  const isHost = to.length === bitsOf(to.address);
  const parts = new Map<number, Uint8Array>([[RouteAddress.Destination, sockaddr(bsd, to.network)]]);
  let flags = RouteFlag.Up | RouteFlag.Static;
  if (isHost) flags |= RouteFlag.Host;
  if (via !== undefined) flags |= RouteFlag.Gateway;
  if (type !== MessageType.RTM_GET) {
    parts.set(RouteAddress.Gateway, via === undefined ? linkSockaddr(bsd, index) : sockaddr(bsd, via));
  }
  if (!isHost) parts.set(RouteAddress.Netmask, sockaddr(bsd, netmask(to)));
  // The reply contains the interface index only if the query contains this address.
  if (type === MessageType.RTM_GET) parts.set(RouteAddress.Interface, linkSockaddr(bsd, 0));
  const round = (length: number) => Math.ceil(length / bsd.routeAlignment) * bsd.routeAlignment;
  const header = bsd.sizes.rt_msghdr;
  const length = parts.values().reduce((sum, part) => sum + round(part.length), header);
  const message = new Uint8Array(length);
  const view = viewOf(message);
  view.setUint16(RtMsghdr.Length, length, true);
  view.setUint8(RtMsghdr.Version, RTM_VERSION);
  view.setUint8(RtMsghdr.Type, type);
  view.setInt32(RtMsghdr.Flags, flags, true);
  view.setInt32(RtMsghdr.Addresses, parts.keys().reduce((sum, bit) => sum | bit, 0), true);
  view.setInt32(RtMsghdr.Sequence, ++lastSequence, true);
  let offset = header;
  for (const part of parts.values()) {
    message.set(part, offset);
    offset += round(part.length);
  }
  return message;
}

export interface InterfaceState {
  /** Flags (IFF_). */
  readonly flags: number;
  /** MTU (bytes). */
  readonly mtu: number;
}

/** Reads the state of an interface from an RTM_IFINFO message; returns `undefined` for any other message. */
export function readInterfaceState(message: Uint8Array, index: number): InterfaceState | undefined {
  if (message.length < IfMsghdr.MinSize || message[IfMsghdr.Type] !== MessageType.RTM_IFINFO) {
    return undefined;
  }
  const view = viewOf(message);
  if (view.getUint16(IfMsghdr.Index, true) !== index) return undefined;
  return { flags: view.getInt32(IfMsghdr.Flags, true), mtu: view.getUint32(IfMsghdr.Mtu, true) };
}

/** A routing socket. */
export class RouteSocket implements Disposable {
  /** Descriptor, which is readable when messages have arrived. */
  readonly descriptor: number;
  readonly #bsd: Bsd;
  readonly #room = new Uint8Array(MESSAGE_ROOM);
  #closed = false;

  /** Opens the socket. @throws {DriverError} when the process has too many open descriptors. */
  constructor(bsd: Bsd) {
    this.#bsd = bsd;
    this.descriptor = bsd.functions.socket(AF_ROUTE, SOCK_RAW, 0);
    if (this.descriptor < 0) throw bsd.systemError("open a routing socket", "socket", bsd.errno());
    setNonBlocking(bsd, this.descriptor);
  }

  /**
   * Adds a route through an interface.
   *
   * @throws {DriverError} when the same route exists through a different interface, or when the next hop is reached
   * through a different interface.
   * @throws {Deno.errors.PermissionDenied} when the process is not root.
   */
  add(route: InterfaceRoute, index: number): void {
    const { Errno, systemError, asRoot } = this.#bsd;
    const { to, via } = route;
    const what = `add route ${formatCidr(to)}`;
    if (via !== undefined && this.#interfaceOf(new Prefix(via, bitsOf(via))) !== index) {
      throw systemError(
        what,
        "RTM_GET",
        Errno.ENETUNREACH,
        "its next hop is reached through a different interface",
      );
    }
    const failed = this.#send(routeMessage(this.#bsd, MessageType.RTM_ADD, route, index));
    if (failed === 0 || failed === Errno.EEXIST && this.#interfaceOf(to) === index) return;
    const remedies: Record<number, string> = {
      [Errno.EEXIST]: "it exists through a different interface: remove that route, or choose a longer prefix",
      [Errno.EPERM]: asRoot,
    };
    throw systemError(what, "RTM_ADD", failed, remedies[failed]);
  }

  /** Removes a route through an interface, if it exists. @throws {DriverError} when the system refuses. */
  remove(route: InterfaceRoute, index: number): void {
    const failed = this.#send(routeMessage(this.#bsd, MessageType.RTM_DELETE, route, index));
    if (failed === 0 || failed === this.#bsd.Errno.ESRCH) return;
    throw this.#bsd.systemError(`remove route ${formatCidr(route.to)}`, "RTM_DELETE", failed);
  }

  /** Returns the next message without waiting; `undefined` when none has arrived. */
  receive(): Uint8Array | undefined {
    const length = this.#bsd.functions.readInto(this.descriptor, this.#room, MESSAGE_ROOM_64);
    return length > 0 ? this.#room.subarray(0, length) : undefined;
  }

  /** Closes the socket. Further calls do nothing. */
  close(): void {
    if (!this.#closed) this.#bsd.functions.close(this.descriptor);
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Sends a message, which takes effect at once; returns an error number, or 0 on success. */
  #send(message: Uint8Array<ArrayBuffer>): number {
    const { functions } = this.#bsd;
    return functions.writeFrom(this.descriptor, message, BigInt(message.length)) < 0 ? this.#bsd.errno() : 0;
  }

  /** Returns the index of the interface through which the system routes to a prefix; 0 when it has no route. */
  #interfaceOf(to: Prefix): number {
    const { functions } = this.#bsd;
    const query = routeMessage(this.#bsd, MessageType.RTM_GET, { to }, 0);
    if (this.#send(query) !== 0) return 0;
    const sequence = viewOf(query).getInt32(RtMsghdr.Sequence, true);
    const pollfd = Int32Array.of(this.descriptor, POLLIN);
    while (functions.poll(pollfd, 1n, REPLY_TIMEOUT) > 0) {
      const reply = this.receive();
      // The socket also receives replies to other processes.
      if (reply === undefined || reply[RtMsghdr.Type] !== MessageType.RTM_GET) continue;
      const view = viewOf(reply);
      const isOurs = view.getInt32(RtMsghdr.Pid, true) === Deno.pid;
      if (isOurs && view.getInt32(RtMsghdr.Sequence, true) === sequence) {
        return view.getUint16(RtMsghdr.Index, true);
      }
    }
    return 0;
  }
}
