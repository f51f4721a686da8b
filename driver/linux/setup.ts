/**
 * Applies a device's options to the system, and undoes them.
 *
 * The kernel undoes most changes when it removes the device. Changes that persist, on a persistent device or outside
 * the device, are recorded in the journal first: after a crash, the next start or `warren doctor --repair` undoes them.
 */

import { formatCidr, type Prefix } from "../../lib/wire/address.ts";
import type { CheckedDeviceOptions, CheckedRoute, CheckedRule } from "../options.ts";
import { halvesOf } from "../default_route.ts";
import { readSystemFile } from "./files.ts";
import { Journal } from "./journal.ts";
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
/** Default queue length (packets). The kernel's own default, 500, overflows within one turn of the loop. */
const TX_QUEUE_LENGTH = 1000;

/** An address, route or rule that the options request. */
interface Requested {
  readonly change: Change;
  /** True if the change would outlive the process. */
  readonly persists: boolean;
  /** True if the change is possible only while the link is up. */
  readonly needsUp: boolean;
  readonly isPresent: (state: KernelState) => boolean;
}

/** The kernel's current addresses, routes and rules; each list is fetched once, when it is first needed. */
class KernelState {
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
    const { destination, type = RouteType.Unicast, table = MAIN_TABLE, gateway, metric } = route;
    return this.#routes.get(prefixKey(destination))?.some((one) =>
      one.type === type && one.table === table && one.gateway?.toHex() === gateway?.toHex() &&
      (metric === undefined || (one.metric ?? 0) === metric)
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

/** The changes made for one device. */
export class Setup {
  readonly #netlink: Netlink;
  readonly #name: string;
  /** Applied changes that persist, oldest first. */
  #applied: Change[] = [];
  /** Addresses, routes and rules that the options request, in the order in which they are applied. */
  #requested: Requested[] = [];
  readonly #journal: Journal;

  /** Creates the setup, without changes, of the device with this name. */
  constructor(netlink: Netlink, name: string) {
    this.#netlink = netlink;
    this.#name = name;
    this.#journal = new Journal(name);
  }

  /** {@linkcode Journal.sharedPath}. */
  get sharedJournalPath(): Uint8Array {
    return this.#journal.sharedPath;
  }

  /**
   * Applies the options to a link. Changes that are already in place are skipped, so that a fully prepared persistent
   * device needs no privileges.
   *
   * @throws {Deno.errors.PermissionDenied} without `CAP_NET_ADMIN`, or when no folder can hold the journal.
   * @throws {DriverError} when the kernel rejects a change. The caller must then call {@linkcode Setup.undo}.
   */
  apply(link: Link, options: CheckedDeviceOptions): void {
    const persists = link.persistent === true;
    const { mtu = link.mtu, txQueueLength = persists ? link.txQueueLength : TX_QUEUE_LENGTH, up } = options;
    if (mtu !== link.mtu) this.#apply([setLink(link, { mtu })], persists);
    if (txQueueLength !== link.txQueueLength) this.#apply([setLink(link, { txQueueLength })], persists);
    this.#addAddresses(link, options.addresses, persists);
    if (up !== link.up) this.#apply([setLink(link, { up })], persists);
    this.#addRoutes(link, options, persists);
    this.#addRules(options.rules);
  }

  /**
   * Undoes all changes, newest first.
   *
   * @throws {AggregateError} when some could not be undone; these remain in the journal.
   */
  undo(): void {
    const applied = this.#applied.splice(0).reverse();
    const undos = applied.map(({ description, undo }) => ({
      description: `undo: ${description}`,
      request: undo,
    }));
    const failures = this.#netlink.undoAll(undos);
    if (failures.size === 0) return this.#journal.close();
    const failed = new Set([...failures.keys()].map(({ request }) => request));
    this.#journal.forget(applied.filter(({ undo }) => !failed.has(undo)));
    this.#journal.abandon();
    const message =
      `Cannot restore "${this.#name}": some changes could not be undone: run warren doctor --repair`;
    throw new AggregateError(summarize([...failures.values()]), message);
  }

  /** Returns the missing addresses, routes and rules. Omits those that need the link to be up if it is down. */
  missing(link: Link): string[] {
    return this.#missing(link).map(({ change }) => change.description.replace(/^add the /, ""));
  }

  /**
   * Adds the missing addresses, routes and rules again.
   *
   * @throws {Error} as {@linkcode Setup.apply}.
   */
  restore(link: Link): void {
    const missing = this.#missing(link);
    // A change that is still in the journal must not be recorded twice.
    const recorded = new Set(this.#applied);
    const isNew = ({ change, persists }: Requested) => persists && !recorded.has(change);
    this.#apply(missing.filter((one) => !isNew(one)).map(({ change }) => change), false);
    this.#apply(missing.filter(isNew).map(({ change }) => change), true);
  }

  #missing(link: Link): Requested[] {
    const state = new KernelState(this.#netlink, link.index);
    return this.#requested.filter(({ needsUp, isPresent }) => (link.up || !needsUp) && !isPresent(state));
  }

  #addAddresses(link: Link, addresses: readonly Prefix[], persists: boolean): void {
    const state = new KernelState(this.#netlink, link.index);
    const missing: Change[] = [];
    for (const prefix of addresses.map(raw)) {
      const change = addAddress(link, prefix);
      const isPresent = (state: KernelState) => state.hasAddress(prefix);
      this.#requested.push({ change, persists, needsUp: true, isPresent });
      if (!persists || !isPresent(state)) missing.push(change);
    }
    try {
      this.#apply(missing, persists);
    } catch (cause) {
      const six = addresses.find(({ address }) => address.family === 6);
      if (six === undefined || !isIpv6Disabled(link.name)) throw cause;
      throw new Deno.errors.NotSupported(
        `Cannot add the address ${
          formatCidr(six)
        } to ${link.name}: IPv6 is disabled here: enable it with \`sysctl ` +
          "net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0`, or omit the IPv6 address",
        { cause },
      );
    }
  }

  #addRoutes(link: Link, { addresses, routes }: CheckedDeviceOptions, persists: boolean): void {
    if (routes.length === 0) return;
    const state = new KernelState(this.#netlink, link.index);
    const isPresent = (route: RouteOptions) => persists && state.hasRoute(route);
    const families = new Set(addresses.map(({ address }) => address.family));
    const existing = persists ? this.#netlink.addresses(link.index) : [];
    for (const { address } of existing) if (!isLinkLocal(address)) families.add(address.length === 4 ? 4 : 6);
    const hasNoIpv6 = isIpv6Disabled(link.name);
    const missing: Change[] = [];
    const blocked: Change[] = [];
    for (const route of routes) {
      const { isDefault = false, to, metric, table } = route;
      const { family } = to.address;
      const whole = routeOptions(route, to);
      // A prepared device may have the whole route instead of two halves.
      const isWhole = to.length > 0 || metric !== undefined || table !== undefined || isPresent(whole);
      const parts = isWhole ? [whole] : halvesOf(to).map((half) => routeOptions(route, half));
      const lacksFamily = families.size > 0 && !families.has(family);
      if (isDefault && (lacksFamily || family === 6 && hasNoIpv6)) {
        // Packets of a family that the tunnel does not carry must not bypass it (RFC 7359).
        for (const part of parts) {
          blocked.push(this.#requestRoute(undefined, { ...part, type: RouteType.Unreachable }, true));
        }
      } else {
        for (const part of parts) {
          const change = this.#requestRoute(link, part, persists);
          if (!isPresent(part)) missing.push(change);
        }
      }
    }
    this.#apply(missing, persists);
    try {
      this.#apply(blocked, true);
    } catch (error) {
      this.#requested = this.#requested.filter(({ change }) => !blocked.includes(change));
      // Without IPv6 nothing leaks, and another tunnel may have added the same routes.
      if (!isIpv6Disabled("lo") && (error as { code?: string }).code !== "EEXIST") {
        console.warn(`warren: ${(error as Error).message}: such packets may bypass "${link.name}"`);
      }
    }
    if (hasNoIpv6 && blocked.length > 0) {
      console.warn(`warren: IPv6 is disabled: the default route through "${link.name}" is IPv4 only`);
    }
  }

  #requestRoute(link: Link | undefined, route: RouteOptions, persists: boolean): Change {
    const change = addRoute(link, route);
    const needsUp = link !== undefined;
    this.#requested.push({ change, persists, needsUp, isPresent: (state) => state.hasRoute(route) });
    return change;
  }

  #addRules(rules: readonly CheckedRule[]): void {
    const lowest = new Map<Family, number>();
    const changes = rules.map((rule) => {
      const family = rule.family === 4 ? Family.Ipv4 : Family.Ipv6;
      const { priority = lowest.get(family) ?? this.#netlink.freePriority(family) } = rule;
      // A later rule without a priority goes before this one, as if this one had already been added.
      lowest.set(family, Math.max(1, Math.min(priority - 1, lowest.get(family) ?? priority - 1)));
      const { table, from, to, mark } = rule;
      const requested: Rule = {
        family,
        priority,
        table,
        from: from && raw(from),
        to: to && raw(to),
        fwmark: mark,
      };
      const change = addRule(requested);
      const isPresent = (state: KernelState) => state.hasRule(requested);
      this.#requested.push({ change, persists: true, needsUp: false, isPresent });
      return change;
    });
    this.#apply(changes, true);
  }

  /** Applies changes; if they persist, they are first recorded in the journal. */
  #apply(changes: readonly Change[], persists: boolean): void {
    if (persists) {
      this.#journal.record(changes);
      // If the kernel does not reply, any of them may be in effect.
      this.#applied.push(...changes);
    }
    const failures = this.#netlink.applyAll(changes);
    if (failures.size === 0) return;
    this.#applied = this.#applied.filter((change) => !failures.has(change));
    this.#journal.forget([...failures.keys()]);
    throw [...failures.values()].find((error) => error !== undefined)!;
  }
}

function raw({ address, length }: Prefix): RawPrefix {
  return { address: address.bytes, length };
}

function routeOptions({ via, metric, table }: CheckedRoute, to: Prefix): RouteOptions {
  return { destination: raw(to), gateway: via?.bytes, metric, table };
}

/** Reports whether an address is IPv6 link-local (RFC 4291 section 2.5.6), which every link has. */
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
