/**
 * Makes a device what its options say, and back.
 *
 * What the kernel removes with the device needs no undo. What would stay, on a persistent device or beside the
 * device, is written to the journal before it is made: a crash leaves the note, and the next start, or
 * `warren doctor --repair`, puts it back.
 */

import { formatCidr, type Prefix } from "../../lib/address.ts";
import { type CheckedDeviceOptions, type CheckedRoute, type CheckedRule, halvesOf } from "../options.ts";
import { readSystemFile } from "./files.ts";
import { Journal, type JournalEntry, summarize } from "./journal.ts";
import { addAddress, type Link, setLink } from "./netlink/links.ts";
import type { Netlink } from "./netlink/netlink.ts";
import type { Change } from "./netlink/message.ts";
import { Family, type RawPrefix } from "./netlink/prefix.ts";
import { addRoute, addRule, type Route, type RouteOptions, RouteType } from "./netlink/routes.ts";

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
    this.#addRoutes(link, options, stays);
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
    throw new AggregateError(summarize([...failures.values()]), `Cannot put "${this.#name}" back as it was`);
  }

  #addAddresses(link: Link, addresses: readonly Prefix[], stays: boolean): void {
    if (addresses.length === 0) return;
    const present = new Set((stays ? this.#netlink.addresses(link.index) : []).map(prefixKey));
    const wanted = addresses.map(raw).filter((prefix) => !present.has(prefixKey(prefix)));
    try {
      this.#make(wanted.map((prefix) => addAddress(link, prefix)), stays);
    } catch (cause) {
      const six = addresses.find(({ address }) => address.family === 6);
      if (six === undefined || !isIpv6Off(link.name)) throw cause;
      throw new Deno.errors.NotSupported(
        `Cannot add the address ${
          formatCidr(six)
        } to ${link.name}: IPv6 is off here: turn it on by \`sysctl ` +
          "net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0`, or leave the IPv6 address out",
        { cause },
      );
    }
  }

  #addRoutes(link: Link, { addresses, routes }: CheckedDeviceOptions, stays: boolean): void {
    if (routes.length === 0) return;
    const present = Map.groupBy(
      stays ? this.#netlink.routes(link.index) : [],
      ({ destination }) => prefixKey(destination),
    );
    const isPresent = (route: RouteOptions) =>
      present.get(prefixKey(route.destination))?.some((one) => isRoute(one, route));
    const wanted = routes.flatMap((route) => {
      const whole = routeOptions(route, route.to);
      if (isPresent(whole)) return [];
      const { to, metric, table } = route;
      return to.length > 0 || metric !== undefined || table !== undefined
        ? [{ route, made: whole }]
        : halvesOf(to).map((half) => ({ route, made: routeOptions(route, half) })).filter(({ made }) =>
          !isPresent(made)
        );
    });
    const families = new Set(addresses.map(({ address }) => address.family));
    const linkAddresses = stays ? this.#netlink.addresses(link.index) : [];
    for (const { address } of linkAddresses) if (!isLinkLocal(address)) families.add(familyNumber(address));
    const hasNo = (family: 4 | 6) => families.size > 0 && !families.has(family);
    const hasNoIpv6 = isIpv6Off(link.name);
    const isBlocked = ({ isDefault = false, to: { address: { family } } }: CheckedRoute) =>
      isDefault && (hasNo(family) || family === 6 && hasNoIpv6);
    const ofDevice = wanted.filter(({ route }) => !isBlocked(route));
    this.#make(ofDevice.map(({ made }) => addRoute(link, made)), stays);
    // What the tunnel cannot carry is not to pass beside it (RFC 7359).
    const blocked = wanted.filter(({ route }) => isBlocked(route)).map(({ made }) =>
      addRoute(undefined, { ...made, type: RouteType.Unreachable })
    );
    try {
      this.#make(blocked, true);
    } catch (error) {
      // Where there is no IPv6, nothing leaks; and another tunnel may have made the same routes.
      if (!isIpv6Off("lo") && (error as { code?: string }).code !== "EEXIST") {
        console.warn(`warren: ${(error as Error).message}: such packets may pass beside "${link.name}"`);
      }
    }
    if (hasNoIpv6 && blocked.length > 0) {
      console.warn(`warren: IPv6 is off here: "${link.name}" is the way to everywhere by IPv4 alone`);
    }
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

function routeOptions({ via, metric, table }: CheckedRoute, to: Prefix): RouteOptions {
  return {
    destination: raw(to),
    ...(via === undefined ? {} : { gateway: via.bytes }),
    ...(metric === undefined ? {} : { metric }),
    ...(table === undefined ? {} : { table }),
  };
}

function familyNumber(address: Uint8Array): 4 | 6 {
  return address.length === 4 ? 4 : 6;
}

/** RFC 4291 section 2.5.6: every link has one. */
function isLinkLocal(address: Uint8Array): boolean {
  return address.length === 16 && address[0] === 0xfe && (address[1]! & 0xc0) === 0x80;
}

/** Whether a link has no IPv6, by sysctl or as the kernel was started (Documentation/networking/ip-sysctl.rst). */
function isIpv6Off(name: string): boolean {
  return readSystemFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`)?.trim() !== "0";
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
