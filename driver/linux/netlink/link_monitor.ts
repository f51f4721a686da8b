/** Events of one link: it goes up or down, changes its MTU, or is removed. */

import type { DeviceEvent } from "../../../lib/core/mod.ts";
import { Errno, systemError } from "../errno.ts";
import { type Link, linkIndexOf, readLink } from "./links.ts";
import { Netlink } from "./netlink.ts";
import { type Message, MessageType } from "./message.ts";
import { NetlinkSocket, RTMGRP, SOCK_NONBLOCK } from "./socket.ts";

/** Monitors one link. After the socket's receive queue overflows, it reads the link's state and reports the changes. */
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

  /** Current name of the link, or the last one before it was removed. */
  get name(): string {
    return this.#name;
  }

  /**
   * Subscribes to the events of a link.
   *
   * @throws {Deno.errors.NotFound} when the link does not exist.
   */
  static open(index: number): LinkMonitor {
    using undo = new DisposableStack();
    const socket = new NetlinkSocket(RTMGRP.Link, SOCK_NONBLOCK);
    undo.defer(() => socket.close());
    using netlink = Netlink.open();
    const link = netlink.link(index);
    if (link === undefined) throw systemError(`watch the link ${index}`, "RTM_GETLINK", Errno.ENODEV);
    undo.move();
    return new LinkMonitor(socket, link);
  }

  /** Non-blocking descriptor that is readable when there are events. */
  get descriptor(): number {
    return this.#socket.descriptor;
  }

  /** Returns the events since the last call, in order. Nothing follows `gone`. */
  drain(): DeviceEvent[] {
    const events: DeviceEvent[] = [];
    let lost = false;
    while (!this.#gone) {
      const messages = this.#socket.receive();
      if (typeof messages !== "number") messages.forEach((message) => this.#handle(message, events));
      else if (messages === Errno.ENOBUFS) lost = true;
      else if (lost) {
        // The state is read after the queue is empty, as queued messages describe an older state.
        lost = false;
        this.#resume(events);
      } else break;
    }
    return events;
  }

  /** Closes the socket; further calls do nothing. */
  close(): void {
    this.#gone = true;
    this.#socket.close();
  }

  /** Calls {@linkcode LinkMonitor.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #handle({ type, body }: Message, events: DeviceEvent[]): void {
    if (linkIndexOf(body) !== this.#index) return;
    const link = readLink(body);
    if (link === undefined) return;
    if (type === MessageType.RTM_NEWLINK) this.#compare(link, events);
    else if (type === MessageType.RTM_DELLINK) this.#end(events);
  }

  /** Compares the link with its state before messages were lost. */
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
