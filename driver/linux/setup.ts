/**
 * Makes a device what its options say, and back.
 *
 * What the kernel removes with the device needs no undo. What would stay, on a persistent device or beside the
 * device, is written to the journal before it is made: a crash leaves the note, and the next start, or
 * `warren doctor --repair`, puts it back.
 */

import type { Prefix } from "../../lib/address.ts";
import type { CheckedDeviceOptions, CheckedRoute, CheckedRule } from "../options.ts";
import { Journal, type JournalEntry } from "./journal.ts";
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
  readonly #made: JournalEntry[] = [];
  readonly #journal: Journal;

  /** For a device of this name. */
  constructor(netlink: Netlink, name: string) {
    this.#netlink = netlink;
    this.#name = name;
    this.#journal = new Journal(name);
  }

  /** The path of the journal as C text, kept up to date, for another thread; empty while there is none. */
  get sharedJournalPath(): Uint8Array {
    return this.#journal.sharedPath;
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
    if (mtu !== link.mtu) this.#make([setLink(link, { mtu })], stays);
    if (txQueueLength !== link.txQueueLength) this.#make([setLink(link, { txQueueLength })], stays);
    this.#addAddresses(link, options.addresses, stays);
    if (up !== link.up) this.#make([setLink(link, { up })], stays);
    this.#addRoutes(link, options.routes, stays);
    this.#addRules(options.rules);
  }

  /**
   * Puts everything back, newest first.
   *
   * @throws {AggregateError} when something could not be; the rest was, and the journal keeps its note.
   */
  undo(): void {
    const made = this.#made.splice(0).reverse();
    const failures = this.#netlink.undoAll(
      made.map(({ description, undo }) => ({ description: `undo: ${description}`, undo })),
    );
    if (failures.size === 0) return this.#journal.close();
    const left = new Set([...failures.keys()].map(({ undo }) => undo));
    this.#journal.forget(made.map(({ undo }) => undo).filter((undo) => !left.has(undo)));
    this.#journal.abandon();
    throw new AggregateError(failures.values(), `Cannot put "${this.#name}" back as it was`);
  }

  #addAddresses(link: Link, addresses: readonly Prefix[], stays: boolean): void {
    if (addresses.length === 0) return;
    const present = new Set((stays ? this.#netlink.addresses(link.index) : []).map(prefixKey));
    const wanted = addresses.map(raw).filter((prefix) => !present.has(prefixKey(prefix)));
    this.#make(wanted.map((prefix) => addAddress(link, prefix)), stays);
  }

  #addRoutes(link: Link, routes: readonly CheckedRoute[], stays: boolean): void {
    if (routes.length === 0) return;
    const present = Map.groupBy(
      stays ? this.#netlink.routes(link.index) : [],
      ({ destination }) => prefixKey(destination),
    );
    const wanted = routes.map(({ to, via, metric, table }): RouteOptions => ({
      destination: raw(to),
      ...(via === undefined ? {} : { gateway: via.bytes }),
      ...(metric === undefined ? {} : { metric }),
      ...(table === undefined ? {} : { table }),
    })).filter((route) => !present.get(prefixKey(route.destination))?.some((one) => isRoute(one, route)));
    this.#make(wanted.map((route) => addRoute(link, route)), stays);
  }

  #addRules(rules: readonly CheckedRule[]): void {
    const lowest = new Map<Family, number>();
    const changes = rules.map((rule) => {
      const family = rule.family === 4 ? Family.Ipv4 : Family.Ipv6;
      const { priority = lowest.get(family) ?? this.#netlink.freePriority(family) } = rule;
      // The next rule without a priority goes before this one, as if the kernel had it already.
      lowest.set(family, Math.max(1, Math.min(priority - 1, lowest.get(family) ?? priority - 1)));
      return addRule({
        family,
        priority,
        table: rule.table,
        ...(rule.from === undefined ? {} : { from: raw(rule.from) }),
        ...(rule.to === undefined ? {} : { to: raw(rule.to) }),
        ...(rule.mark === undefined ? {} : { fwmark: rule.mark }),
      });
    });
    this.#make(changes, true);
  }

  /** Makes changes; those that would stay are in the journal before. */
  #make(changes: readonly Change[], stays: boolean): void {
    const noted = changes.flatMap(({ description, undo }) =>
      stays && undo !== undefined ? [{ description, undo }] : []
    );
    this.#journal.record(noted);
    // While the kernel has not answered, any of them may have been made.
    this.#made.push(...noted);
    const unmade = this.#netlink.applyAll(changes);
    if (unmade.size === 0) return;
    const undos = new Set([...unmade.keys()].map(({ undo }) => undo));
    this.#made.splice(0, Infinity, ...this.#made.filter(({ undo }) => !undos.has(undo)));
    this.#journal.forget([...undos].filter((undo) => undo !== undefined));
    throw [...unmade.values()].find((error) => error !== undefined)!;
  }
}

function raw({ address, length }: Prefix): RawPrefix {
  return { address: address.bytes, length };
}

function prefixKey({ address, length }: RawPrefix): string {
  return `${address.toHex()}/${length}`;
}

/** Whether a route to the same prefix is the wanted one. */
function isRoute(present: Route, wanted: RouteOptions): boolean {
  return (wanted.metric === undefined || wanted.metric === (present.metric ?? 0)) &&
    (wanted.table === undefined || wanted.table === present.table) &&
    (wanted.gateway === undefined
      ? present.gateway === undefined
      : sameBytes(present.gateway, wanted.gateway));
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && a.length === b.length && a.every((byte, i) => byte === b[i]);
}
