/**
 * Keeps what a device was asked to have. Other programs remove addresses, routes and rules: by name, or by setting the
 * link down and up. What is gone is made again, a bounded number of times; then it is another program's.
 */

import type { DeviceEvent } from "../../lib/core/mod.ts";
import { linkIndexOf } from "./netlink/links.ts";
import { type Message, MessageType } from "./netlink/message.ts";
import type { Netlink } from "./netlink/netlink.ts";
import { readRoute, RouteType } from "./netlink/routes.ts";
import { NetlinkSocket, RTMGRP, SOCK_NONBLOCK } from "./netlink/socket.ts";
import type { Setup } from "./setup.ts";

// Implementation
/** Restorations within a period (milliseconds): a program that goes on removing things is not fought. */
const MAX_RESTORATIONS = 10;
const PERIOD = 60_000;
/** The things that a line of text names. */
const MAX_NAMED = 8;

/** Watches over a device's addresses, routes and rules. */
export class StateKeeper implements Disposable {
  readonly #setup: Setup;
  readonly #netlink: Netlink;
  readonly #index: number;
  readonly #news: NetlinkSocket;
  /** The times of restorations, the latest last (monotonic milliseconds). */
  readonly #restorations: number[] = [];
  #hasGivenUp = false;

  /** For a device that has been set up, with this index. */
  constructor(setup: Setup, netlink: Netlink, index: number) {
    this.#setup = setup;
    this.#netlink = netlink;
    this.#index = index;
    const { Link, Ipv4Address, Ipv4Route, Ipv4Rule, Ipv6Address, Ipv6Route, Ipv6Rule } = RTMGRP;
    const groups = Link | Ipv4Address | Ipv4Route | Ipv4Rule | Ipv6Address | Ipv6Route | Ipv6Rule;
    this.#news = new NetlinkSocket(groups, SOCK_NONBLOCK);
  }

  /** Readable when there is news. */
  get descriptor(): number {
    return this.#news.descriptor;
  }

  /** Reads the news, and makes again what is gone. To be called when the descriptor is readable. */
  drain(now: number = performance.now()): Pick<DeviceEvent, "kind" | "what"> | undefined {
    const concerned = this.#news.drain((message) => this.#concerns(message));
    return concerned && !this.#hasGivenUp ? this.#restore(now) : undefined;
  }

  /** Frees the socket; further calls do nothing. */
  close(): void {
    this.#news.close();
  }

  /** {@linkcode StateKeeper.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #restore(now: number): Pick<DeviceEvent, "kind" | "what"> | undefined {
    const link = this.#netlink.link(this.#index);
    // It was removed, or moved to another network namespace.
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
          "within a minute: it stays removed, and nothing more is put back",
      );
      return { kind: "lost", what: missing };
    }
    this.#restorations.push(now);
    try {
      this.#setup.restore(link);
      console.warn(
        `warren: put back on "${link.name}", where something had removed it: ${listed(missing)}`,
      );
      return { kind: "restored", what: missing };
    } catch (error) {
      // It may have gone meanwhile.
      if (this.#netlink.link(this.#index)?.up !== link.up) return undefined;
      console.warn(`warren: ${(error as Error).message}: "${link.name}" has lost it`);
      return { kind: "lost", what: missing };
    }
  }

  /** Tells whether news may be about something that the device was asked to have. */
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
