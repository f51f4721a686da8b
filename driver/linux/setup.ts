/**
 * Setup of a device from its options, and the undo.
 *
 * Changes that the kernel removes with the device need no undo. Changes that would stay, on a persistent device or
 * outside the device, are recorded in the journal first: after a crash, the next start or `warren doctor --repair`
 * undoes them.
 */

import { formatCidr, Prefix } from "../../lib/wire/address.ts";
import type { CheckedDeviceOptions, CheckedRoute, CheckedRule } from "../options.ts";
import { halvesOf } from "../default_route.ts";
import { readSystemFile } from "./files.ts";
import { Journal } from "./journal.ts";
import type { JournalEntry } from "./journal_format.ts";
import { summarize } from "./leftovers.ts";
import { addAddress, type Link, setLink } from "./netlink/links.ts";
import type { Netlink } from "./netlink/netlink.ts";
import type { Change } from "./netlink/message.ts";
import { Family, type RawPrefix } from "./netlink/prefix.ts";
import {
  addRoute,
  addRule,
  MAIN_TABLE,
  type Route,
  type RouteOptions,
  RouteType,
  type Rule,
} from "./netlink/routes.ts";

// Implementation
/** Default queue length (packets); the 500 of TUN (drivers/net/tun.c) overflow within one turn of the loop. */
const TX_QUEUE_LENGTH = 1000;

/** An address, route or rule that the options ask for. */
interface Wanted {
  readonly change: Change;
  /** True if it would outlive the process. */
  readonly stays: boolean;
  /** True if the link has to be up for it. */
  readonly needsUp: boolean;
  readonly isPresent: (present: Present) => boolean;
}

/** The kernel's current addresses, routes and rules, each list fetched at most once. */
class Present {
  readonly #netlink: Netlink;
  readonly #index: number;
  readonly #rules = new Map<Family, Rule[]>();
  #addresses: Set<string> | undefined;
  #routes: Map<string, Route[]> | undefined;

  constructor(netlink: Netlink, index: number) {
    this.#netlink = netlink;
    this.#index = index;
  }

  hasAddress(prefix: RawPrefix): boolean {
    this.#addresses ??= new Set(this.#netlink.addresses(this.#index).map(prefixKey));
    return this.#addresses.has(prefixKey(prefix));
  }

  hasRoute(route: RouteOptions): boolean {
    this.#routes ??= Map.groupBy(
      this.#netlink.routes().filter(({ index, type }) =>
        index === this.#index || type === RouteType.Unreachable
      ),
      ({ destination }) => prefixKey(destination),
    );
    const { type = RouteType.Unicast } = route;
    return this.#routes.get(prefixKey(route.destination))?.some((one) =>
      one.type === type && isRoute(one, { table: MAIN_TABLE, ...route })
    ) ?? false;
  }

  hasRule(rule: Rule): boolean {
    const { family, priority, table, from, to, fwmark } = rule;
    const rules = this.#rules.get(family) ?? this.#netlink.rules(family);
    this.#rules.set(family, rules);
    const key = (prefix: RawPrefix | undefined) =>
      prefix === undefined || prefix.length === 0 ? "" : prefixKey(prefix);
    return rules.some((one) =>
      one.priority === priority && one.table === table && (one.fwmark ?? 0) === (fwmark ?? 0) &&
      key(one.from) === key(from) && key(one.to) === key(to)
    );
  }
}

/** Changes made for a device, with their undo. */
export class Setup {
  readonly #netlink: Netlink;
  readonly #name: string;
  /** Changes that the kernel would not remove by itself, oldest first. */
  readonly #made: JournalEntry[] = [];
  /** Addresses, routes and rules that the options ask for, in the order in which they are made. */
  readonly #wanted: Wanted[] = [];
  readonly #journal: Journal;

  /** Starts without changes, for the device of this name. */
  constructor(netlink: Netlink, name: string) {
    this.#netlink = netlink;
    this.#name = name;
    this.#journal = new Journal(name);
  }

  /** Path of the journal as a C string, kept up to date for other threads; empty while there is none. */
  get sharedJournalPath(): Uint8Array {
    return this.#journal.sharedPath;
  }

  /**
   * Sets up a link as the options say. Settings that are in place already are left alone, so that a fully prepared
   * persistent device needs no privilege.
   *
   * @throws {Error} with the kernel's message; the caller then calls {@linkcode Setup.undo}.
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
   * Undoes all changes, newest first.
   *
   * @throws {AggregateError} when some could not be undone; the journal keeps those.
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
    const message =
      `Cannot restore "${this.#name}": some changes could not be undone: run warren doctor --repair`;
    throw new AggregateError(summarize([...failures.values()]), message);
  }

  /** Addresses, routes and rules that another program has removed and that the link can have in its present state. */
  missing(link: Link): string[] {
    return this.#missing(link).map(({ change }) => change.description.replace(/^add the /, ""));
  }

  /**
   * Makes missing addresses, routes and rules again.
   *
   * @throws {Error} with the kernel's message.
   */
  restore(link: Link): void {
    const missing = this.#missing(link);
    const recorded = new Set(this.#made.map(({ undo }) => undo));
    const isRecorded = ({ change, stays }: Wanted) =>
      !stays || change.undo !== undefined && recorded.has(change.undo);
    // Entries that are in the journal already are not written again.
    this.#make(missing.filter(isRecorded).map(({ change }) => change), false);
    this.#make(missing.filter((one) => !isRecorded(one)).map(({ change }) => change), true);
  }

  #missing(link: Link): Wanted[] {
    const present = new Present(this.#netlink, link.index);
    return this.#wanted.filter(({ needsUp, isPresent }) => (link.up || !needsUp) && !isPresent(present));
  }

  #addAddresses(link: Link, addresses: readonly Prefix[], stays: boolean): void {
    if (addresses.length === 0) return;
    const present = new Set((stays ? this.#netlink.addresses(link.index) : []).map(prefixKey));
    const changes = addresses.map(raw).map((prefix) => {
      const change = addAddress(link, prefix);
      this.#wanted.push({ change, stays, needsUp: true, isPresent: (present) => present.hasAddress(prefix) });
      return { prefix, change };
    });
    try {
      this.#make(
        changes.filter(({ prefix }) => !present.has(prefixKey(prefix))).map(({ change }) => change),
        stays,
      );
    } catch (cause) {
      const six = addresses.find(({ address }) => address.family === 6);
      if (six === undefined || !isIpv6Disabled(link.name)) throw cause;
      throw new Deno.errors.NotSupported(
        `Cannot add the address ${
          formatCidr(six)
        } to ${link.name}: IPv6 is disabled here: enable it by \`sysctl ` +
          "net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0`, or omit the IPv6 address",
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
      const { to, metric, table } = route;
      const whole = routeOptions(route, to);
      // A prepared device may have the whole route instead of two halves.
      return to.length > 0 || metric !== undefined || table !== undefined || isPresent(whole)
        ? [{ route, made: whole }]
        : halvesOf(to).map((half) => ({ route, made: routeOptions(route, half) }));
    });
    const families = new Set(addresses.map(({ address }) => address.family));
    const existing = stays ? this.#netlink.addresses(link.index) : [];
    for (const { address } of existing) if (!isLinkLocal(address)) families.add(address.length === 4 ? 4 : 6);
    const hasNo = (family: 4 | 6) => families.size > 0 && !families.has(family);
    const hasNoIpv6 = isIpv6Disabled(link.name);
    const isBlocked = ({ isDefault = false, to: { address: { family } } }: CheckedRoute) =>
      isDefault && (hasNo(family) || family === 6 && hasNoIpv6);
    const ofDevice = wanted.filter(({ route }) => !isBlocked(route));
    const changes = ofDevice.map(({ made }) => ({
      made,
      change: this.#want(addRoute(link, made), made, stays),
    }));
    this.#make(changes.filter(({ made }) => !isPresent(made)).map(({ change }) => change), stays);
    // Packets of a family that the tunnel does not carry must not bypass it (RFC 7359).
    const blocked = wanted.filter(({ route }) => isBlocked(route)).map(({ made }) => {
      const route = { ...made, type: RouteType.Unreachable };
      return this.#want(addRoute(undefined, route), route, true);
    });
    try {
      this.#make(blocked, true);
    } catch (error) {
      this.#wanted.splice(0, Infinity, ...this.#wanted.filter(({ change }) => !blocked.includes(change)));
      // Without IPv6 nothing leaks, and another tunnel may have made the same routes.
      if (!isIpv6Disabled("lo") && (error as { code?: string }).code !== "EEXIST") {
        console.warn(`warren: ${(error as Error).message}: such packets may bypass "${link.name}"`);
      }
    }
    if (hasNoIpv6 && blocked.length > 0) {
      console.warn(`warren: IPv6 is disabled: the default route through "${link.name}" is IPv4 only`);
    }
  }

  /** Notes a route to be restored when another program removes it. */
  #want(change: Change, route: RouteOptions, stays: boolean): Change {
    const needsUp = route.type !== RouteType.Unreachable;
    this.#wanted.push({ change, stays, needsUp, isPresent: (present) => present.hasRoute(route) });
    return change;
  }

  #addRules(rules: readonly CheckedRule[]): void {
    const lowest = new Map<Family, number>();
    const changes = rules.map((rule) => {
      const family = rule.family === 4 ? Family.Ipv4 : Family.Ipv6;
      const { priority = lowest.get(family) ?? this.#netlink.freePriority(family) } = rule;
      // The next rule without a priority goes before this one, as if this one were in the kernel already.
      lowest.set(family, Math.max(1, Math.min(priority - 1, lowest.get(family) ?? priority - 1)));
      const wanted: Rule = {
        family,
        priority,
        table: rule.table,
        ...(rule.from === undefined ? {} : { from: raw(rule.from) }),
        ...(rule.to === undefined ? {} : { to: raw(rule.to) }),
        ...(rule.mark === undefined ? {} : { fwmark: rule.mark }),
      };
      const change = addRule(wanted);
      this.#wanted.push({
        change,
        stays: true,
        needsUp: false,
        isPresent: (present) => present.hasRule(wanted),
      });
      return change;
    });
    this.#make(changes, true);
  }

  /** Makes changes; those that would stay are recorded in the journal first. */
  #make(changes: readonly Change[], stays: boolean): void {
    const entries = changes.flatMap(({ description, undo }) =>
      stays && undo !== undefined ? [{ description, undo }] : []
    );
    this.#journal.record(entries);
    // Until the kernel replies, any of them may have been made.
    this.#made.push(...entries);
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

/**
 * Checks routes before anything is changed: the kernel reports a bad prefix only as EINVAL.
 *
 * @throws {SyntaxError} for a route whose address has bits beyond its prefix length.
 */
export function checkRoutes(routes: readonly CheckedRoute[]): void {
  for (const { to } of routes) {
    const whole = new Prefix(to.network, to.length);
    const host = new Prefix(to.address, to.address.bytes.length * 8);
    if (formatCidr(to) === formatCidr(whole)) continue;
    throw new SyntaxError(
      `Cannot add a route: its address must have no bits beyond the prefix length, got ${
        formatCidr(to)
      }: write ` +
        `${formatCidr(whole)}, or ${formatCidr(host)} for one host`,
    );
  }
}

function routeOptions({ via, metric, table }: CheckedRoute, to: Prefix): RouteOptions {
  return {
    destination: raw(to),
    ...(via === undefined ? {} : { gateway: via.bytes }),
    ...(metric === undefined ? {} : { metric }),
    ...(table === undefined ? {} : { table }),
  };
}

/** Reports whether an address is link-local (RFC 4291 section 2.5.6), which every IPv6 link has. */
function isLinkLocal(address: Uint8Array): boolean {
  return address.length === 16 && address[0] === 0xfe && (address[1]! & 0xc0) === 0x80;
}

/** Reports whether IPv6 is disabled on a link, by sysctl or at boot (Documentation/networking/ip-sysctl.rst). */
function isIpv6Disabled(name: string): boolean {
  return readSystemFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`)?.trim() !== "0";
}

function prefixKey({ address, length }: RawPrefix): string {
  return `${address.toHex()}/${length}`;
}

/** Compares two routes to the same prefix. */
function isRoute(present: Route, wanted: RouteOptions): boolean {
  return (wanted.metric === undefined || wanted.metric === (present.metric ?? 0)) &&
    (wanted.table === undefined || wanted.table === present.table) &&
    wanted.gateway?.toHex() === present.gateway?.toHex();
}
