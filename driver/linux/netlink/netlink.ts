/** Network settings of the kernel over a netlink socket: queries and changes. */

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
  viewOf,
  withSequence,
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
// The kernel replies while it handles the request: a longer wait would be in vain.
const REPLY_TIMEOUT_SECONDS = 5;
const DUMP_ATTEMPTS = 16;
// Below the kernel's own rules at 32766 and 32767.
const LAST_PRIORITY = 32765;
/**
 * Requests per datagram. Each may be answered by an error, which takes about a kilobyte of the socket's receive
 * buffer; some systems limit that to 100 KiB.
 */
const BATCH_MESSAGES = 64;
/** Errors of an undo whose object is gone already, or there again. */
const UNDONE: readonly number[] = [
  Errno.ENOENT,
  Errno.ESRCH,
  Errno.ENODEV,
  Errno.ENXIO,
  Errno.EADDRNOTAVAIL,
  Errno.EEXIST,
];
const REMEDY = "run as root, or grant CAP_NET_ADMIN to deno";

/**
 * Network settings of this thread's network namespace. Every call sends a request and reads the kernel's reply before
 * it returns, in tens of microseconds. Queries need no privilege; changes need `CAP_NET_ADMIN`.
 *
 * @example Adding an address
 * ```ts no-eval
 * import { Netlink } from "./netlink.ts";
 * import { addAddress } from "./links.ts";
 *
 * using netlink = Netlink.open();
 * const link = netlink.linkByName("tun0")!;
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

  /** Returns the link with an index; `undefined` when there is none. */
  link(index: number): Link | undefined {
    return this.#findLink(index);
  }

  /** Returns the link with a name; `undefined` when there is none. */
  linkByName(name: string): Link | undefined {
    return this.#findLink(name);
  }

  #findLink(which: number | string): Link | undefined {
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

  /** Lists the routes of all tables, IPv4 first; with `index` only those through this link. */
  routes(index?: number): Route[] {
    return [Family.Ipv4, Family.Ipv6]
      .flatMap((family) => this.#dump(dumpRoutes(family, index), "list the routes", [Errno.ENODEV]))
      .filter(({ type, body }) => type === MessageType.RTM_NEWROUTE && !isClonedRoute(body))
      .map(({ body }) => readRoute(body))
      .filter((route) => route !== undefined && (index === undefined || route.index === index)) as Route[];
  }

  /**
   * Looks up the route of a locally generated packet to `address`, optionally with a mark and an outgoing link;
   * `undefined` when there is none. Its destination is the single address.
   */
  routeTo(address: Uint8Array, mark?: number, index?: number): Route | undefined {
    const attempt = `find the route to ${formatRawAddress(address)}`;
    const absent = [Errno.ENETUNREACH, Errno.EHOSTUNREACH, Errno.EACCES, Errno.EINVAL];
    const body = this.#get(getRoute(address, mark, index), MessageType.RTM_NEWROUTE, attempt, absent);
    return body === undefined ? undefined : readRoute(body);
  }

  /** Lists the policy rules of a family that look up a table, in order, with the selectors of {@linkcode Rule}. */
  rules(family: Family): Rule[] {
    return this.#dump(dumpRules(family), "list the rules", [])
      .filter(({ type }) => type === MessageType.RTM_NEWRULE)
      .map(({ body }) => readRule(body))
      .filter((rule) => rule !== undefined);
  }

  /** Priority for a new rule before all others except the local table's, as the kernel would choose it. */
  freePriority(family: Family): number {
    const used = this.rules(family).map(({ priority }) => priority).filter((priority) => priority > 0);
    return Math.max(1, Math.min(...used, LAST_PRIORITY + 1) - 1);
  }

  /**
   * Makes a change; it is in effect when this returns.
   *
   * @throws {Error} as {@linkcode systemError}, with the kernel's message.
   */
  apply({ request, description }: Pick<Change, "request" | "description">): void {
    this.#exchange(request, description, []);
  }

  /**
   * Makes changes in order, 64 per datagram. After a failure, the other changes of the same datagram are still made.
   *
   * @returns the changes that were not made, with their error; those of later datagrams were not tried and have none.
   * @throws {Error} as {@linkcode Netlink.apply}, when the kernel does not reply: any of them may have been made.
   */
  applyAll<Made extends Pick<Change, "request" | "description">>(
    changes: readonly Made[],
  ): Map<Made, Error | undefined> {
    const unmade = new Map<Made, Error | undefined>();
    for (let i = 0; i < changes.length; i += BATCH_MESSAGES) {
      const batch = changes.slice(i, i + BATCH_MESSAGES);
      for (const [change, error] of this.#exchangeAll(batch, ({ request }) => request, [])) {
        unmade.set(change, error);
      }
      if (unmade.size === 0) continue;
      for (const change of changes.slice(i + BATCH_MESSAGES)) unmade.set(change, undefined);
      break;
    }
    return unmade;
  }

  /**
   * Sends an undo. Errors that its object is gone already, or there again, are ignored.
   *
   * @param attempt The action, which follows *Cannot* in errors.
   * @throws {Error} as {@linkcode Netlink.apply}.
   */
  undo(message: Uint8Array, attempt: string): void {
    this.#exchange(message, attempt, UNDONE);
  }

  /**
   * Sends undos in this order, 64 per datagram, as {@linkcode Netlink.undo} does.
   *
   * @returns the undos that failed; the rest succeeded.
   */
  undoAll<Made extends Pick<Change, "description"> & { readonly undo: Uint8Array<ArrayBuffer> }>(
    changes: readonly Made[],
  ): Map<Made, Error> {
    const failures = new Map<Made, Error>();
    for (let i = 0; i < changes.length; i += BATCH_MESSAGES) {
      const batch = changes.slice(i, i + BATCH_MESSAGES);
      try {
        this.#exchangeAll(batch, ({ undo }) => undo, UNDONE).forEach((error, made) =>
          failures.set(made, error)
        );
      } catch (error) {
        for (const made of batch) failures.set(made, error as Error);
      }
    }
    return failures;
  }

  /** Closes the socket; further calls do nothing. */
  close(): void {
    this.#socket.close();
  }

  /** {@linkcode Netlink.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #get(
    request: Uint8Array,
    reply: MessageType,
    attempt: string,
    absent: readonly number[],
  ): Uint8Array | undefined {
    return this.#exchange(request, attempt, absent)?.find(({ type }) => type === reply)?.body;
  }

  #dump(request: Uint8Array, attempt: string, absent: readonly number[]): Message[] {
    // The kernel flags a dump during which the table changed.
    for (let i = 0; i < DUMP_ATTEMPTS; i++) {
      const messages = this.#exchange(request, attempt, absent) ?? [];
      if (!messages.some(({ flags }) => (flags & Flag.DumpInterrupted) !== 0)) return messages;
    }
    throw systemError(attempt, "recvfrom", Errno.EBUSY, "they change faster than they can be read");
  }

  /** Sends requests in one datagram; returns the errors of those that failed, except for the numbers in `absent`. */
  #exchangeAll<Made extends Pick<Change, "description">>(
    changes: readonly Made[],
    requestOf: (change: Made) => Uint8Array,
    absent: readonly number[],
  ): Map<Made, Error> {
    const first = (this.#sequence + 1) >>> 0;
    this.#sequence = (this.#sequence + changes.length) >>> 0;
    const requests = changes.map(requestOf);
    const { description } = changes[0]!;
    const failure = this.#socket.send(joinRequests(requests, first));
    if (failure !== 0) throw failed(description, requests[0]!, failure);
    const failures = new Map<Made, Error>();
    for (;;) {
      const messages = this.#socket.receive();
      if (typeof messages === "number") throw failed(description, requests[0]!, messages);
      for (const message of messages) {
        const i = (message.sequence - first) >>> 0;
        const outcome = i < changes.length ? readOutcome(message) : undefined;
        if (outcome === undefined) continue;
        if (outcome.errno !== 0 && !absent.includes(outcome.errno)) {
          const change = changes[i]!;
          failures.set(change, failed(change.description, requests[i]!, outcome.errno, outcome.text));
        }
        // Only the last one is acknowledged when it succeeds.
        if (i === changes.length - 1) return failures;
      }
    }
  }

  /** Sends a request and returns the replies; `undefined` after one of the errors in `absent`. */
  #exchange(request: Uint8Array, attempt: string, absent: readonly number[]): Message[] | undefined {
    const sequence = this.#sequence = (this.#sequence + 1) >>> 0;
    const failure = this.#socket.send(withSequence(request, sequence));
    if (failure !== 0) throw failed(attempt, request, failure);
    const wanted = viewOf(request).getUint16(NLMSGHDR.flags, true);
    const replies: Message[] = [];
    for (;;) {
      const messages = this.#socket.receive();
      if (typeof messages === "number") throw failed(attempt, request, messages);
      for (const message of messages) {
        // A reply to an earlier request that was not read to its end.
        if (message.sequence !== sequence) continue;
        const outcome = readOutcome(message);
        if (outcome === undefined) {
          replies.push({ ...message, body: new Uint8Array(message.body) });
          if ((wanted & (Flag.Ack | Flag.Dump)) === 0) return replies;
          continue;
        }
        if ((message.flags & Flag.DumpInterrupted) !== 0) {
          replies.push({ ...message, body: new Uint8Array() });
        }
        if (outcome.errno === 0) return replies;
        if (absent.includes(outcome.errno)) return undefined;
        throw failed(attempt, request, outcome.errno, outcome.text);
      }
    }
  }
}

/** Error for a failed request, with the kernel's message if there is one. */
function failed(attempt: string, request: Uint8Array, errno: number, text?: string): Error {
  const operation = messageTypeName(viewOf(request).getUint16(NLMSGHDR.type, true));
  const remedies: Record<number, string> = {
    [Errno.EPERM]: REMEDY,
    [Errno.EAGAIN]: `the kernel did not reply within ${REPLY_TIMEOUT_SECONDS} seconds`,
  };
  return systemError(attempt, operation, errno, text ?? remedies[errno]);
}
