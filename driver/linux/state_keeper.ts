/**
 * Restores addresses, routes and rules of a device that other programs remove, either directly or by setting the link
 * down and up. The number of restorations is bounded; after that the removal stands.
 */

import type { DeviceEvent } from "../../lib/core/mod.ts";
import { linkIndexOf } from "./netlink/links.ts";
import { type Message, MessageType } from "./netlink/message.ts";
import type { Netlink } from "./netlink/netlink.ts";
import { readRoute, RouteType } from "./netlink/routes.ts";
import { NetlinkSocket, RTMGRP, SOCK_NONBLOCK } from "./netlink/socket.ts";
import type { Setup } from "./setup.ts";

// Implementation
/** Maximum restorations within a period (milliseconds): a program that keeps removing things wins. */
const MAX_RESTORATIONS = 10;
const PERIOD = 60_000;
/** Maximum things that a message lists. */
const MAX_NAMED = 8;

/** Watches and restores the addresses, routes and rules of a device. */
export class StateKeeper implements Disposable {
  readonly #setup: Setup;
  readonly #netlink: Netlink;
  readonly #index: number;
  readonly #changes: NetlinkSocket;
  /** Times of restorations, the latest last (monotonic milliseconds). */
  readonly #restorations: number[] = [];
  #hasGivenUp = false;

  /** Watches a device that has been set up, by its index. */
  constructor(setup: Setup, netlink: Netlink, index: number) {
    this.#setup = setup;
    this.#netlink = netlink;
    this.#index = index;
    const { Link, Ipv4Address, Ipv4Route, Ipv4Rule, Ipv6Address, Ipv6Route, Ipv6Rule } = RTMGRP;
    const groups = Link | Ipv4Address | Ipv4Route | Ipv4Rule | Ipv6Address | Ipv6Route | Ipv6Rule;
    this.#changes = new NetlinkSocket(groups, SOCK_NONBLOCK);
  }

  /** Descriptor that is readable after a change. */
  get descriptor(): number {
    return this.#changes.descriptor;
  }

  /** Reads changes and restores what is missing. To be called when the descriptor is readable. */
  drain(now: number = performance.now()): Pick<DeviceEvent, "kind" | "what"> | undefined {
    const concerned = this.#changes.drain((message) => this.#concerns(message));
    return concerned && !this.#hasGivenUp ? this.#restore(now) : undefined;
  }

  /** Frees the socket; further calls do nothing. */
  close(): void {
    this.#changes.close();
  }

  /** {@linkcode StateKeeper.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #restore(now: number): Pick<DeviceEvent, "kind" | "what"> | undefined {
    const link = this.#netlink.link(this.#index);
    // The link was removed, or moved to another network namespace.
    if (link === undefined) return undefined;
    while (this.#restorations.length > 0 && now - this.#restorations[0]! > PERIOD) this.#restorations.shift();
    const missing = this.#setup.missing(link);
    if (missing.length === 0) return undefined;
    if (this.#restorations.length >= MAX_RESTORATIONS) {
      this.#hasGivenUp = true;
      console.warn(
        `warren: Cannot keep ${listed(missing)} on "${link.name}": it was removed ${
          MAX_RESTORATIONS + 1
        } times ` +
          "within a minute: it stays removed, and nothing more is restored",
      );
      return { kind: "lost", what: missing };
    }
    this.#restorations.push(now);
    try {
      this.#setup.restore(link);
      console.warn(
        `warren: restored on "${link.name}" after another program removed it: ${listed(missing)}`,
      );
      return { kind: "restored", what: missing };
    } catch (error) {
      // The link may have gone or changed in the meantime.
      if (this.#netlink.link(this.#index)?.up !== link.up) return undefined;
      console.warn(`warren: ${(error as Error).message}: it stays removed from "${link.name}"`);
      return { kind: "lost", what: missing };
    }
  }

  /** Reports whether a message may be about an address, route or rule of the device. */
  #concerns({ type, body }: Message): boolean {
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

function listed(things: readonly string[]): string {
  const others = things.length - MAX_NAMED;
  return things.slice(0, MAX_NAMED).join(", ") + (others > 0 ? ` and ${others} others` : "");
}
