/** A routing socket (route(4)): routes are asked for and changed by messages, and changes of interfaces are told. */

import { type Address, formatCidr, Prefix } from "../../lib/wire/address.ts";
import { guard } from "../posix/libc.ts";
import { AF_ROUTE, type Bsd, SOCK_RAW, viewOf } from "./bsd.ts";
import { bitsOf, linkSockaddr, netmask, sockaddr } from "./sockaddr.ts";

// Specification: net/route.h, net/if.h
/** Kinds of messages. */
export const MessageType = { RTM_ADD: 1, RTM_DELETE: 2, RTM_GET: 4, RTM_IFINFO: 14 } as const;
/** One of those with a route. */
type RouteMessageType = typeof MessageType["RTM_ADD" | "RTM_DELETE" | "RTM_GET"];
export const RTM_VERSION = 5;
/** What a route is. */
export const RouteFlag = { Up: 1, Gateway: 2, Host: 4, Static: 0x800 } as const;
/** Which addresses follow a message's header, in the order of their bits. */
export const RouteAddress = { Destination: 1, Gateway: 2, Netmask: 4, Interface: 0x10 } as const;
/**
 * `struct rt_msghdr { u16 rtm_msglen; u8 rtm_version, rtm_type; u16 rtm_index; int rtm_flags, rtm_addrs; pid_t rtm_pid;
 * int rtm_seq, rtm_errno; ... }`; what follows differs, and stays zero.
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
 * struct if_data ifm_data; }`, whose data have the MTU at the same place on both systems.
 */
export const IfMsghdr = { Length: 0, Type: 3, Flags: 8, Index: 12, Mtu: 24, Least: 28 } as const;
// poll.h
const POLLIN = 1;

// Implementation
const MESSAGE_ROOM = 4096;
const MESSAGE_ROOM_64 = BigInt(MESSAGE_ROOM);
/** How long the answer to RTM_GET may take (milliseconds). */
const ANSWER_LIMIT = 1000;

/** A route through an interface. */
export interface InterfaceRoute {
  /** Where it leads. */
  readonly to: Prefix;
  /** The next hop, where there is one. */
  readonly via: Address | undefined;
}

let sequences = 0;

/** A message about a route: to the interface of this number itself, or to a next hop. */
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
  // The answer names the interface where the question asks for it.
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
  view.setInt32(RtMsghdr.Sequence, ++sequences, true);
  let offset = header;
  for (const part of parts.values()) {
    message.set(part, offset);
    offset += round(part.length);
  }
  return message;
}

/** The state of an interface, as a message tells it. */
export interface InterfaceState {
  /** Its `IFF_` flags. */
  readonly flags: number;
  /** Its MTU (bytes). */
  readonly mtu: number;
}

/** The state of an interface in a message; `undefined` when the message is about something else. */
export function readInterfaceState(message: Uint8Array, index: number): InterfaceState | undefined {
  if (message.length < IfMsghdr.Least || message[IfMsghdr.Type] !== MessageType.RTM_IFINFO) return undefined;
  const view = viewOf(message);
  if (view.getUint16(IfMsghdr.Index, true) !== index) return undefined;
  return { flags: view.getInt32(IfMsghdr.Flags, true), mtu: view.getUint32(IfMsghdr.Mtu, true) };
}

/** A routing socket. */
export class RouteSocket implements Disposable {
  /** What can be read when something was told. */
  readonly descriptor: number;
  readonly #bsd: Bsd;
  readonly #room = new Uint8Array(MESSAGE_ROOM);
  #closed = false;

  /** @throws {Error} the system's. */
  constructor(bsd: Bsd) {
    this.#bsd = bsd;
    this.descriptor = bsd.functions.socket(AF_ROUTE, SOCK_RAW, 0);
    if (this.descriptor < 0) throw bsd.systemError("open a routing socket", "socket", bsd.errno());
    guard(bsd, this.descriptor);
  }

  /**
   * Adds a route through an interface.
   *
   * @throws {DriverError} when the route is another interface's already, or the next hop is.
   */
  add(route: InterfaceRoute, index: number): void {
    const { Errno, systemError, asRoot } = this.#bsd;
    const { to, via } = route;
    const what = `add route ${formatCidr(to)}`;
    if (via !== undefined && this.#interfaceTo(via) !== index) {
      throw systemError(what, "RTM_GET", Errno.ENETUNREACH, "its next hop is on another interface's network");
    }
    const failed = this.#send(routeMessage(this.#bsd, MessageType.RTM_ADD, route, index));
    if (failed === 0 || failed === Errno.EEXIST && this.#interfaceOf(to) === index) return;
    const remedies: Record<number, string> = {
      [Errno.EEXIST]: "it leads to another interface: remove that route, or choose a longer prefix",
      [Errno.EPERM]: asRoot,
    };
    throw systemError(what, "RTM_ADD", failed, remedies[failed]);
  }

  /** Removes a route through an interface; one that is gone is removed already. @throws {Error} the system's. */
  remove(route: InterfaceRoute, index: number): void {
    const failed = this.#send(routeMessage(this.#bsd, MessageType.RTM_DELETE, route, index));
    if (failed === 0 || failed === this.#bsd.Errno.ESRCH) return;
    throw this.#bsd.systemError(`remove route ${formatCidr(route.to)}`, "RTM_DELETE", failed);
  }

  /** A message that was told; `undefined` when there is none. It never waits. */
  receive(): Uint8Array | undefined {
    const length = this.#bsd.functions.readInto(this.descriptor, this.#room, MESSAGE_ROOM_64);
    return length > 0 ? this.#room.subarray(0, length) : undefined;
  }

  /** Frees it; further calls do nothing. */
  close(): void {
    if (!this.#closed) this.#bsd.functions.close(this.descriptor);
    this.#closed = true;
  }

  /** The same as {@linkcode RouteSocket.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Sends a message, which is done when it returns; returns the error's number, or 0. */
  #send(message: Uint8Array<ArrayBuffer>): number {
    const { functions } = this.#bsd;
    return functions.writeFrom(this.descriptor, message, BigInt(message.length)) < 0 ? this.#bsd.errno() : 0;
  }

  /** The number of the interface that leads to an address; 0 when none does. */
  #interfaceTo(address: Address): number {
    return this.#interfaceOf(new Prefix(address, bitsOf(address)));
  }

  /** The number of the interface of a route; 0 when there is no such route. */
  #interfaceOf(to: Prefix): number {
    const { functions } = this.#bsd;
    const question = routeMessage(this.#bsd, MessageType.RTM_GET, { to, via: undefined }, 0);
    if (this.#send(question) !== 0) return 0;
    const sequence = viewOf(question).getInt32(RtMsghdr.Sequence, true);
    const pollfd = Int32Array.of(this.descriptor, POLLIN);
    while (functions.poll(pollfd, 1n, ANSWER_LIMIT) > 0) {
      const answer = this.receive();
      // Others' messages are told, too.
      if (answer === undefined || answer[RtMsghdr.Type] !== MessageType.RTM_GET) continue;
      const view = viewOf(answer);
      const isOurs = view.getInt32(RtMsghdr.Pid, true) === Deno.pid;
      if (isOurs && view.getInt32(RtMsghdr.Sequence, true) === sequence) {
        return view.getUint16(RtMsghdr.Index, true);
      }
    }
    return 0;
  }
}
