/**
 * Makes a device what its options say, and back.
 *
 * What the kernel removes with the device needs no undo. What would stay, on a persistent device or beside the
 * device, is written to the journal before it is made: a crash leaves the note, and the next start, or
 * `warren doctor --repair`, puts it back.
 */

import type { Prefix } from "../../lib/address.ts";
import type { CheckedDeviceOptions, CheckedRoute, CheckedRule } from "../options.ts";
import { Journal } from "./journal.ts";
import { addAddress, type Link, setLink } from "./netlink/links.ts";
import type { Netlink } from "./netlink/netlink.ts";
import type { Change } from "./netlink/message.ts";
import { Family, type RawPrefix } from "./netlink/prefix.ts";
import { addRoute, addRule, type Route, type RouteOptions } from "./netlink/routes.ts";

// Implementation
/** Packets that wait in the kernel for the script; TUN's own 500 overflow in a breath's time. */
const TX_QUEUE_LENGTH = 1000;

/** What was changed on a device, and how it is put back. */
export class Setup {
  readonly #netlink: Netlink;
  readonly #name: string;
  /** What the kernel would not remove by itself, in the order in which it was made. */
  readonly #undos: { description: string; undo: Uint8Array<ArrayBuffer> }[] = [];
  #journal: Journal | undefined;

  /** For a device of this name. */
  constructor(netlink: Netlink, name: string) {
    this.#netlink = netlink;
    this.#name = name;
  }

  /** The file that says what is to be put back; `""` when there is nothing. */
  get journalPath(): string {
    return this.#journal?.path ?? "";
  }

  /** The messages that put everything back, newest first. */
  get undos(): Uint8Array<ArrayBuffer>[] {
    return this.#undos.map(({ undo }) => undo).reverse();
  }

  /**
   * Makes the link what the options say; what is so already is left alone, so that a persistent device which
   * someone prepared needs no privilege.
   *
   * @throws {Error} the kernel's, with its own words; the caller undoes what was made.
   */
  apply(link: Link, options: CheckedDeviceOptions): void {
    const stays = link.persistent === true;
    const { mtu = link.mtu, txQueueLength = stays ? link.txQueueLength : TX_QUEUE_LENGTH, up } = options;
    if (mtu !== link.mtu) this.#make(setLink(link, { mtu }), stays);
    if (txQueueLength !== link.txQueueLength) this.#make(setLink(link, { txQueueLength }), stays);
    this.#addAddresses(link, options.addresses, stays);
    if (up !== link.up) this.#make(setLink(link, { up }), stays);
    this.#addRoutes(link, options.routes, stays);
    for (const rule of options.rules) this.#addRule(rule);
  }

  /**
   * Puts everything back, newest first.
   *
   * @throws {AggregateError} when something could not be; the rest was, and the journal keeps its note.
   */
  undo(): void {
    const failures: unknown[] = [];
    for (const { description, undo } of this.#undos.reverse()) {
      try {
        this.#netlink.undo(undo, `undo: ${description}`);
      } catch (error) {
        failures.push(error);
      }
    }
    this.#undos.length = 0;
    if (failures.length > 0) throw new AggregateError(failures, `Cannot put "${this.#name}" back as it was`);
    this.#journal?.close();
    this.#journal = undefined;
  }

  #addAddresses(link: Link, addresses: readonly Prefix[], stays: boolean): void {
    if (addresses.length === 0) return;
    const present = stays ? this.#netlink.addresses(link.index) : [];
    for (const prefix of addresses.map(raw)) {
      if (!present.some((one) => samePrefix(one, prefix))) this.#make(addAddress(link, prefix), stays);
    }
  }

  #addRoutes(link: Link, routes: readonly CheckedRoute[], stays: boolean): void {
    if (routes.length === 0) return;
    const present = stays ? this.#netlink.routes(link.index) : [];
    for (const { to, via, metric, table } of routes) {
      const route: RouteOptions = {
        destination: raw(to),
        ...(via === undefined ? {} : { gateway: via.bytes }),
        ...(metric === undefined ? {} : { metric }),
        ...(table === undefined ? {} : { table }),
      };
      if (!present.some((one) => isRoute(one, route))) this.#make(addRoute(link, route), stays);
    }
  }

  #addRule(rule: CheckedRule): void {
    const family = rule.family === 4 ? Family.Ipv4 : Family.Ipv6;
    const change = addRule({
      family,
      priority: rule.priority ?? this.#netlink.freePriority(family),
      table: rule.table,
      ...(rule.from === undefined ? {} : { from: raw(rule.from) }),
      ...(rule.to === undefined ? {} : { to: raw(rule.to) }),
      ...(rule.mark === undefined ? {} : { fwmark: rule.mark }),
    });
    this.#make(change, true);
  }

  #make(change: Change, stays: boolean): void {
    const { description, undo } = change;
    if (!stays || undo === undefined) return this.#netlink.apply(change);
    this.#journal ??= Journal.open(this.#name);
    this.#journal.record(description, undo);
    try {
      this.#netlink.apply(change);
    } catch (error) {
      this.#journal.forget(undo);
      throw error;
    }
    this.#undos.push({ description, undo });
  }
}

function raw({ address, length }: Prefix): RawPrefix {
  return { address: address.bytes, length };
}

function samePrefix(a: RawPrefix, b: RawPrefix): boolean {
  return a.length === b.length && sameBytes(a.address, b.address);
}

function isRoute(present: Route, wanted: RouteOptions): boolean {
  return samePrefix(present.destination, wanted.destination) &&
    (wanted.metric === undefined || wanted.metric === (present.metric ?? 0)) &&
    (wanted.table === undefined || wanted.table === present.table) &&
    (wanted.gateway === undefined
      ? present.gateway === undefined
      : sameBytes(present.gateway, wanted.gateway));
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && a.length === b.length && a.every((byte, i) => byte === b[i]);
}
