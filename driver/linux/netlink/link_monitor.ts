/** News of one link: that it went up or down, that its MTU changed, that it is gone. */

import type { DeviceEvent } from "../../../lib/core/mod.ts";
import { Errno, systemError } from "../errno.ts";
import { type Link, linkIndexOf, readLink } from "./links.ts";
import { Netlink } from "./netlink.ts";
import { type Message, MessageType } from "./message.ts";
import { NetlinkSocket, RTMGRP, SOCK_NONBLOCK } from "./socket.ts";

/**
 * News of one link, from the moment of opening. None is lost: when the kernel's queue of news was too short, the
 * monitor asks for the state and tells what differs.
 */
export class LinkMonitor implements Disposable {
  readonly #socket: NetlinkSocket;
  readonly #index: number;
  #up: boolean;
  #mtu: number;
  #name: string;
  #gone = false;

  private constructor(socket: NetlinkSocket, link: Link) {
    this.#socket = socket;
    this.#index = link.index;
    this.#up = link.up;
    this.#mtu = link.mtu;
    this.#name = link.name;
  }

  /** The link's name; the last one, when it is gone. */
  get name(): string {
    return this.#name;
  }

  /**
   * Subscribes to news of a link.
   *
   * @throws {Deno.errors.NotFound} when there is no such link.
   */
  static open(index: number): LinkMonitor {
    const socket = new NetlinkSocket(RTMGRP.Link, SOCK_NONBLOCK);
    try {
      using netlink = Netlink.open();
      const link = netlink.link(index);
      if (link === undefined) throw systemError(`watch the link ${index}`, "RTM_GETLINK", Errno.ENODEV);
      return new LinkMonitor(socket, link);
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** What can be read when there is news. It never waits. */
  get descriptor(): number {
    return this.#socket.descriptor;
  }

  /** What happened since the last call, in its order; after `gone` nothing happens. */
  drain(): DeviceEvent[] {
    const events: DeviceEvent[] = [];
    let lost = false;
    while (!this.#gone) {
      const messages = this.#socket.receive();
      if (typeof messages !== "number") messages.forEach((message) => this.#take(message, events));
      else if (messages === Errno.ENOBUFS) lost = true;
      else if (lost) {
        // Only now: what was still in the queue is older than the state.
        lost = false;
        this.#resume(events);
      } else break;
    }
    return events;
  }

  /** Frees the socket; further calls do nothing. */
  close(): void {
    this.#gone = true;
    this.#socket.close();
  }

  /** {@linkcode LinkMonitor.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #take({ type, body }: Message, events: DeviceEvent[]): void {
    if (linkIndexOf(body) !== this.#index) return;
    const link = readLink(body);
    if (link === undefined) return;
    if (type === MessageType.RTM_NEWLINK) this.#compare(link, events);
    else if (type === MessageType.RTM_DELLINK) this.#end(events);
  }

  /** News were lost. */
  #resume(events: DeviceEvent[]): void {
    using netlink = Netlink.open();
    const link = netlink.link(this.#index);
    if (link === undefined) this.#end(events);
    else this.#compare(link, events);
  }

  #compare({ name, mtu, up }: Link, events: DeviceEvent[]): void {
    if (this.#gone) return;
    if (mtu !== this.#mtu) events.push({ kind: "mtu", mtu });
    if (up !== this.#up) events.push({ kind: up ? "up" : "down", mtu });
    this.#name = name;
    this.#mtu = mtu;
    this.#up = up;
  }

  #end(events: DeviceEvent[]): void {
    if (!this.#gone) events.push({ kind: "gone", mtu: this.#mtu });
    this.#gone = true;
  }
}
