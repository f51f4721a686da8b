/** Queries and changes of the kernel's network settings over a netlink socket. */

import { Errno, systemError } from "../errno.ts";
import { dumpAddresses, getLink, type Link, type LinkAddress, readAddress, readLink } from "./links.ts";
import {
  type Change,
  Flag,
  joinRequests,
  type Message,
  MessageType,
  messageTypeName,
  NLMSGHDR,
  readOutcome,
} from "./message.ts";
import { NetlinkSocket } from "./socket.ts";
import { Family, formatRawAddress } from "./prefix.ts";
import {
  dumpRoutes,
  dumpRules,
  getRoute,
  isClonedRoute,
  readRoute,
  readRule,
  type Route,
  type Rule,
} from "./routes.ts";
import { viewOf } from "../../native_memory.ts";

// Specification: include/linux/socket.h, include/uapi/linux/netlink.h, asm-generic/socket.h
/**
 * ```c
 * struct timeval {
 *   time_t tv_sec;
 *   suseconds_t tv_usec;
 * };
 * ```
 */
const TIMEVAL = { sec: 0, usec: 8, size: 16 } as const;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;

// Implementation
// The kernel replies while it handles the request, so a reply that is missing afterwards never comes.
const REPLY_TIMEOUT_SECONDS = 5;
const DUMP_ATTEMPTS = 16;
// The kernel's own rules have priorities 32766 and 32767.
const LAST_PRIORITY = 32765;
/**
 * Requests per datagram. An error reply takes about a kilobyte of the socket's receive buffer, which some systems limit
 * to 100 KiB.
 */
const BATCH_MESSAGES = 64;
/** Errors of an undo message whose object no longer exists. */
const ALREADY_UNDONE: readonly number[] = [
  Errno.ENOENT,
  Errno.ESRCH,
  Errno.ENODEV,
  Errno.ENXIO,
  Errno.EADDRNOTAVAIL,
];
const REMEDY = "run as root, or grant CAP_NET_ADMIN to deno";

/** A message, and the action that follows *Cannot* in errors. */
type Command = Pick<Change, "request" | "description">;

/**
 * Network settings of this thread's network namespace. Calls are synchronous and take tens of microseconds. Queries
 * need no privilege; changes need `CAP_NET_ADMIN`.
 *
 * @example Adding an address
 * ```ts no-eval
 * import { Netlink } from "./netlink.ts";
 * import { addAddress } from "./links.ts";
 *
 * using netlink = Netlink.open();
 * const link = netlink.link("tun0")!;
 * const change = addAddress(link, { address: Uint8Array.of(10, 9, 0, 1), length: 24 });
 * netlink.apply(change);
 * ```
 */
export class Netlink implements Disposable {
  readonly #socket: NetlinkSocket;
  #sequence = 0;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /**
   * Opens a netlink socket.
   *
   * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
   */
  static open(): Netlink {
    const socket = new NetlinkSocket(0, 0);
    const on = Uint8Array.of(1, 0, 0, 0);
    socket.set(SOL_NETLINK, NETLINK_CAP_ACK, on);
    socket.set(SOL_NETLINK, NETLINK_EXT_ACK, on);
    socket.set(SOL_NETLINK, NETLINK_GET_STRICT_CHK, on);
    const timeout = new Uint8Array(TIMEVAL.size);
    viewOf(timeout).setUint32(TIMEVAL.sec, REPLY_TIMEOUT_SECONDS, true);
    socket.set(SOL_SOCKET, SO_RCVTIMEO, timeout);
    return new Netlink(socket);
  }

  /** Returns the link with this index or name; `undefined` when it does not exist. */
  link(which: number | string): Link | undefined {
    const request = getLink(which);
    if (request === undefined) return undefined;
    const absent = [Errno.ENODEV, Errno.ENXIO];
    const body = this.#get(request, MessageType.RTM_NEWLINK, `find the link ${which}`, absent);
    return body === undefined ? undefined : readLink(body);
  }

  /** Lists the addresses of a link, IPv4 first. */
  addresses(index: number): LinkAddress[] {
    return this.#dump(dumpAddresses(index), `list the addresses of link ${index}`, [Errno.ENODEV])
      .filter(({ type }) => type === MessageType.RTM_NEWADDR)
      .map(({ body }) => readAddress(body))
      .filter((address) => address !== undefined && address.index === index) as LinkAddress[];
  }

  /** Lists the routes in all tables, IPv4 first; `index` restricts the list to one link. */
  routes(index?: number): Route[] {
    return [Family.Ipv4, Family.Ipv6]
      .flatMap((family) => this.#dump(dumpRoutes(family, index), "list the routes", [Errno.ENODEV]))
      .filter(({ type, body }) => type === MessageType.RTM_NEWROUTE && !isClonedRoute(body))
      .map(({ body }) => readRoute(body))
      .filter((route) => route !== undefined && (index === undefined || route.index === index)) as Route[];
  }

  /**
   * Returns the route that the kernel chooses for a local packet to `address`; `undefined` if there is none. `index`
   * restricts the choice to one link. The route's destination is `address` alone.
   */
  routeTo(address: Uint8Array, index?: number): Route | undefined {
    const attempt = `find the route to ${formatRawAddress(address)}`;
    const absent = [Errno.ENETUNREACH, Errno.EHOSTUNREACH, Errno.EACCES, Errno.EINVAL];
    const body = this.#get(getRoute(address, index), MessageType.RTM_NEWROUTE, attempt, absent);
    return body === undefined ? undefined : readRoute(body);
  }

  /** Lists a family's policy rules that look up a table, in order of priority. */
  rules(family: Family): Rule[] {
    return this.#dump(dumpRules(family), "list the rules", [])
      .filter(({ type }) => type === MessageType.RTM_NEWRULE)
      .map(({ body }) => readRule(body))
      .filter((rule) => rule !== undefined);
  }

  /** Returns the priority that the kernel would give a new rule: before all other rules but that of the local table. */
  freePriority(family: Family): number {
    const used = this.rules(family).map(({ priority }) => priority).filter((priority) => priority > 0);
    return Math.max(1, Math.min(...used, LAST_PRIORITY + 1) - 1);
  }

  /**
   * Applies a change, which is in effect when this returns.
   *
   * @throws {Deno.errors.PermissionDenied} without `CAP_NET_ADMIN`.
   * @throws {DriverError} when the kernel rejects the change (with the kernel's message) or does not reply.
   */
  apply(change: Command): void {
    const [error] = this.#send([change], []).values();
    if (error !== undefined) throw error;
  }

  /**
   * Applies changes in order, 64 per datagram, and stops after the first datagram with a failure.
   *
   * @returns The changes that were not applied. A rejected change has its error, an unsent change `undefined`.
   * @throws {DriverError} when the kernel does not reply; any of the changes may then be in effect.
   */
  applyAll<Applied extends Command>(changes: readonly Applied[]): Map<Applied, Error | undefined> {
    for (let i = 0; i < changes.length; i += BATCH_MESSAGES) {
      const failures = this.#send(changes.slice(i, i + BATCH_MESSAGES), []);
      if (failures.size === 0) continue;
      const unsent = changes.slice(i + BATCH_MESSAGES);
      return new Map([...failures, ...unsent.map((change) => [change, undefined] as const)]);
    }
    return new Map();
  }

  /**
   * Sends an undo message. Does nothing if its object no longer exists.
   *
   * @throws {Error} as {@linkcode Netlink.apply}.
   */
  undo(undo: Command): void {
    const [error] = this.#send([undo], ALREADY_UNDONE).values();
    if (error !== undefined) throw error;
  }

  /**
   * Sends undo messages in order, 64 per datagram, as {@linkcode Netlink.undo} does.
   *
   * @returns The messages that failed, with their error.
   */
  undoAll(undos: readonly Command[]): Map<Command, Error> {
    const failures = new Map<Command, Error>();
    for (let i = 0; i < undos.length; i += BATCH_MESSAGES) {
      const batch = undos.slice(i, i + BATCH_MESSAGES);
      try {
        for (const [undo, error] of this.#send(batch, ALREADY_UNDONE)) failures.set(undo, error);
      } catch (error) {
        for (const undo of batch) failures.set(undo, error as Error);
      }
    }
    return failures;
  }

  /** Closes the socket; further calls do nothing. */
  close(): void {
    this.#socket.close();
  }

  /** Calls {@linkcode Netlink.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #get(
    request: Uint8Array<ArrayBuffer>,
    reply: MessageType,
    attempt: string,
    absent: readonly number[],
  ): Uint8Array | undefined {
    return this.#query(request, attempt, absent).find(({ type }) => type === reply)?.body;
  }

  #dump(request: Uint8Array<ArrayBuffer>, attempt: string, absent: readonly number[]): Message[] {
    // The kernel flags a dump during which the table changed.
    for (let i = 0; i < DUMP_ATTEMPTS; i++) {
      const messages = this.#query(request, attempt, absent);
      if (!messages.some(({ flags }) => (flags & Flag.DumpInterrupted) !== 0)) return messages;
    }
    throw systemError(attempt, "recvfrom", Errno.EBUSY, "they change faster than they can be read");
  }

  /** Sends requests in one datagram. Returns the failures, except for those with an `ignored` error number. */
  #send<Sent extends Command>(requests: readonly Sent[], ignored: readonly number[]): Map<Sent, Error> {
    const first = this.#start(requests);
    const failures = new Map<Sent, Error>();
    for (;;) {
      for (const message of this.#receive(requests[0]!)) {
        const i = (message.sequence - first) >>> 0;
        const outcome = i < requests.length ? readOutcome(message) : undefined;
        if (outcome === undefined) continue;
        const request = requests[i]!;
        const { errno, text } = outcome;
        if (errno !== 0 && !ignored.includes(errno)) failures.set(request, failed(request, errno, text));
        // Of the successful requests, only the last one is acknowledged.
        if (i === requests.length - 1) return failures;
      }
    }
  }

  /** Sends a query and returns the replies; none after one of the errors in `absent`. */
  #query(message: Uint8Array<ArrayBuffer>, description: string, absent: readonly number[]): Message[] {
    const request = { request: message, description };
    const sequence = this.#start([request]);
    const isDump = (viewOf(message).getUint16(NLMSGHDR.flags, true) & Flag.Dump) !== 0;
    const replies: Message[] = [];
    for (;;) {
      for (const message of this.#receive(request)) {
        // The rest of an earlier reply.
        if (message.sequence !== sequence) continue;
        const outcome = readOutcome(message);
        if (outcome === undefined) {
          replies.push({ ...message, body: new Uint8Array(message.body) });
          if (!isDump) return replies;
          continue;
        }
        if ((message.flags & Flag.DumpInterrupted) !== 0) {
          replies.push({ ...message, body: new Uint8Array() });
        }
        if (outcome.errno === 0) return replies;
        if (absent.includes(outcome.errno)) return [];
        throw failed(request, outcome.errno, outcome.text);
      }
    }
  }

  /** Sends requests in one datagram; returns the sequence number of the first. */
  #start(requests: readonly Command[]): number {
    const first = (this.#sequence + 1) >>> 0;
    this.#sequence = (this.#sequence + requests.length) >>> 0;
    const errno = this.#socket.send(joinRequests(requests.map(({ request }) => request), first));
    if (errno !== 0) throw failed(requests[0]!, errno);
    return first;
  }

  #receive(request: Command): Message[] {
    const messages = this.#socket.receive();
    if (typeof messages === "number") throw failed(request, messages);
    return messages;
  }
}

/** Returns the error of a failed request, with the kernel's message if there is one. */
function failed({ request, description }: Command, errno: number, text?: string): Error {
  const operation = messageTypeName(viewOf(request).getUint16(NLMSGHDR.type, true));
  const remedies: Record<number, string> = {
    [Errno.EPERM]: REMEDY,
    [Errno.EAGAIN]: `the kernel did not reply within ${REPLY_TIMEOUT_SECONDS} seconds`,
  };
  return systemError(description, operation, errno, text ?? remedies[errno]);
}
