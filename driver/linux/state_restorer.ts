/**
 * Restores a device's addresses, routes and rules when other programs remove them, either directly or by setting the
 * link down and up. Gives up after 10 restorations within a minute.
 */

import type { DeviceEvent } from "../../lib/core/mod.ts";
import { linkIndexOf } from "./netlink/links.ts";
import { type Message, MessageType } from "./netlink/message.ts";
import type { Netlink } from "./netlink/netlink.ts";
import { readRoute, RouteType } from "./netlink/routes.ts";
import { NetlinkSocket, RTMGRP, SOCK_NONBLOCK } from "./netlink/socket.ts";
import type { Setup } from "./setup.ts";

// Implementation
/** Maximum number of restorations within a period. */
const MAX_RESTORATIONS = 10;
/** Length of the period (milliseconds). */
const PERIOD = 60_000;
/** Maximum number of addresses, routes and rules that a message lists. */
const MAX_NAMED = 8;

/** Watches and restores a device's addresses, routes and rules. */
export class StateRestorer {
  readonly #setup: Setup;
  readonly #netlink: Netlink;
  readonly #index: number;
  readonly #changes: NetlinkSocket;
  /** Times of restorations, oldest first (monotonic milliseconds). */
  readonly #restorations: number[] = [];
  #hasGivenUp = false;

  /** Starts watching the link with this index. Its setup must be complete. */
  constructor(setup: Setup, netlink: Netlink, index: number) {
    this.#setup = setup;
    this.#netlink = netlink;
    this.#index = index;
    const { Link, Ipv4Address, Ipv4Route, Ipv4Rule, Ipv6Address, Ipv6Route, Ipv6Rule } = RTMGRP;
    const groups = Link | Ipv4Address | Ipv4Route | Ipv4Rule | Ipv6Address | Ipv6Route | Ipv6Rule;
    this.#changes = new NetlinkSocket(groups, SOCK_NONBLOCK);
  }

  /** Descriptor that becomes readable after a change. */
  get descriptor(): number {
    return this.#changes.descriptor;
  }

  /** Reads the reported changes and restores whatever is missing. */
  drain(now: number = performance.now()): Pick<DeviceEvent, "kind" | "what"> | undefined {
    const mayBeMissing = this.#changes.drain((message) => this.#isRelevant(message));
    return mayBeMissing && !this.#hasGivenUp ? this.#restore(now) : undefined;
  }

  /** Frees the socket; further calls do nothing. */
  close(): void {
    this.#changes.close();
  }

  #restore(now: number): Pick<DeviceEvent, "kind" | "what"> | undefined {
    const link = this.#netlink.link(this.#index);
    // The link has been removed, or moved to a different network namespace.
    if (link === undefined) return undefined;
    while (this.#restorations.length > 0 && now - this.#restorations[0]! > PERIOD) this.#restorations.shift();
    const missing = this.#setup.missing(link);
    if (missing.length === 0) return undefined;
    if (this.#restorations.length >= MAX_RESTORATIONS) {
      this.#hasGivenUp = true;
      console.warn(
        `warren: Cannot keep ${
          list(missing)
        } on "${link.name}": other programs removed addresses, routes or rules ` +
          `${MAX_RESTORATIONS + 1} times within a minute: nothing more will be restored`,
      );
      return { kind: "lost", what: missing };
    }
    this.#restorations.push(now);
    try {
      this.#setup.restore(link);
      console.warn(
        `warren: restored on "${link.name}" after another program removed it: ${list(missing)}`,
      );
      return { kind: "restored", what: missing };
    } catch (error) {
      // The link may have been removed, or set down or up, in the meantime.
      if (this.#netlink.link(this.#index)?.up !== link.up) return undefined;
      console.warn(`warren: ${(error as Error).message}: it stays removed from "${link.name}"`);
      return { kind: "lost", what: missing };
    }
  }

  /** Reports whether a message may be about one of the device's addresses, routes or rules. */
  #isRelevant({ type, body }: Message): boolean {
    switch (type) {
      case MessageType.RTM_NEWLINK:
      case MessageType.RTM_DELADDR:
        return linkIndexOf(body) === this.#index;
      case MessageType.RTM_DELROUTE: {
        const route = readRoute(body);
        return route?.index === this.#index || route?.type === RouteType.Unreachable;
      }
      case MessageType.RTM_DELRULE:
        return true;
      default:
        return false;
    }
  }
}

function list(names: readonly string[]): string {
  const others = names.length - MAX_NAMED;
  return names.slice(0, MAX_NAMED).join(", ") + (others > 0 ? ` and ${others} others` : "");
}
