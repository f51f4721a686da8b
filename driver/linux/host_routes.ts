/**
 * Host routes of Linux that lead beside the tunnels, and follow the system's own routes.
 *
 * The way to an address is the kernel's answer (RTM_GETROUTE). If that already leads into a tunnel, it is the best route of
 * the main table that is no tunnel's; if the two agree at first, changes of that table are followed. While there is no way,
 * the host route is `unreachable`: the far end's packets fail, and do not enter the tunnel.
 */

import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { type HostRoute, type HostRoutes, startsWith } from "../bypass.ts";
import { readSystemFile } from "./files.ts";
import { Journal } from "./journal.ts";
import { recover } from "./leftovers.ts";
import { linkIndexOf } from "./netlink/links.ts";
import { type Change, type Message, MessageType } from "./netlink/message.ts";
import { Netlink } from "./netlink/netlink.ts";
import {
  addRoute,
  MAIN_TABLE,
  readRoute,
  type Route,
  ROUTE_PROTOCOL,
  type RouteOptions,
  RouteType,
} from "./netlink/routes.ts";
import { NetlinkSocket, RTMGRP, SOCK_NONBLOCK } from "./netlink/socket.ts";
import { ownLinks } from "./own_links.ts";

// Specification: include/uapi/linux/rtnetlink.h
const RT_TABLE_DEFAULT = 253;

// Implementation
/** resolv.conf(5); and where systemd-resolved, which stands in for it, has the servers that it asks itself. */
const RESOLVER_FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/** A way to an address: the link, and the next router where there is one. */
type Path = Pick<Route, "index" | "gateway" | "via" | "source">;

/** The host routes of one tunnel. */
export class LinuxHostRoutes implements HostRoutes {
  readonly #deviceName: string;
  readonly #netlink: Netlink;
  readonly #journal: Journal;
  readonly #news: NetlinkSocket;
  /** The addresses of the host routes. */
  readonly wanted = new Set<Uint8Array>();
  /** The kernel's routes, while one event is handled. */
  #routes: Route[] | undefined;

  /** For a tunnel whose device is called so; it may be there already. */
  constructor(deviceName: string) {
    this.#deviceName = deviceName;
    // The same routes may be left of a process that crashed: they would be gone when the device opens.
    recover();
    this.#journal = new Journal(deviceName);
    using undo = new DisposableStack();
    this.#netlink = undo.use(Netlink.open());
    const { Link, Ipv4Address, Ipv6Address, Ipv4Route, Ipv6Route } = RTMGRP;
    // The kernel tells of no route that goes with its link or its address.
    this.#news = new NetlinkSocket(Link | Ipv4Address | Ipv6Address | Ipv4Route | Ipv6Route, SOCK_NONBLOCK);
    undo.move();
  }

  get descriptor(): number {
    return this.#news.descriptor;
  }

  get rescueData(): Uint8Array[] {
    return [this.#journal.sharedPath];
  }

  add(address: Address, tables: readonly number[], interfaceName: string | undefined): HostRoute {
    this.#routes = undefined;
    return new LinuxHostRoute(this, address, tables, interfaceName);
  }

  nameServers(): Address[] {
    const texts = RESOLVER_FILES.flatMap((path) =>
      [...readSystemFile(path)?.matchAll(/^\s*nameserver\s+([\da-f.:]+)\s*$/gim) ?? []].map(([, text]) =>
        text!
      )
    );
    return [...new Set(texts)].flatMap((text) => {
      try {
        return [parseAddress(text)];
      } catch {
        return [];
      }
    });
  }

  drain(): boolean {
    const changed = this.#news.drain((message) => this.#concerns(message));
    if (changed) this.#routes = undefined;
    return changed;
  }

  close(): void {
    this.#journal.close();
    this.#netlink.close();
    this.#news.close();
  }

  /** The way that the kernel takes now; `undefined` when there is none, or it leads into a tunnel. */
  askedPath(address: Address, interfaceName: string | undefined): Path | "local" | undefined {
    const only = this.#indexOf(interfaceName);
    if (interfaceName !== undefined && only === undefined) return undefined;
    const route = this.#netlink.routeTo(address.bytes, undefined, only);
    if (route?.type === RouteType.Local) return "local";
    if (route?.type !== RouteType.Unicast) return undefined;
    return isOwn(route.index, this.#indexOf(this.#deviceName)) ? undefined : route;
  }

  /** Tells whether there is such a link. */
  hasLink(index: number): boolean {
    return this.#netlink.link(index) !== undefined;
  }

  /** The best route of the main table that was not made by Warren and leads into no tunnel. */
  listedPath({ bytes }: Address, interfaceName: string | undefined): Path | undefined {
    const only = this.#indexOf(interfaceName);
    if (interfaceName !== undefined && only === undefined) return undefined;
    let best: Route | undefined;
    // Asked for once: there may be thousands of routes.
    const device = this.#indexOf(this.#deviceName);
    for (const route of this.routes) {
      const { destination: { address, length }, type, table, index, protocol, metric = 0 } = route;
      if (type !== RouteType.Unicast || (table !== MAIN_TABLE && table !== RT_TABLE_DEFAULT)) continue;
      if (isOwn(index, device) || only !== undefined && index !== only) continue;
      // Those of other processes' tunnels, which go around this one's far end, and host routes.
      if (protocol === ROUTE_PROTOCOL) continue;
      if (!startsWith(bytes, address, length)) continue;
      const longer = length - (best?.destination.length ?? -1);
      if (longer > 0 || longer === 0 && metric < (best!.metric ?? 0)) best = route;
    }
    return best;
  }

  /** All routes that the kernel has. */
  get routes(): Route[] {
    return this.#routes ??= this.#netlink.routes();
  }

  /** Makes a route; returns its undo, or `undefined` where somebody else has made the same. */
  make(index: number | undefined, route: RouteOptions): Change | undefined {
    const link = index === undefined ? undefined : this.#netlink.link(index);
    const change = addRoute(link, route);
    const { description, undo } = change;
    this.#journal.record([{ description, undo: undo! }]);
    try {
      this.#netlink.apply(change);
      return change;
    } catch (error) {
      this.#journal.forget([undo!]);
      if ((error as { code?: string }).code === "EEXIST") return undefined;
      throw error;
    }
  }

  /** Takes a route back. */
  unmake({ description, undo }: Change): void {
    this.#netlink.undo(undo!, `undo: ${description}`);
    this.#journal.forget([undo!]);
  }

  #indexOf(interfaceName: string | undefined): number | undefined {
    return interfaceName === undefined ? undefined : this.#netlink.linkByName(interfaceName)?.index;
  }

  /** Tells whether news may change the way to an address. */
  #concerns({ type, body }: Message): boolean {
    if (type !== MessageType.RTM_NEWROUTE && type !== MessageType.RTM_DELROUTE) {
      return !ownLinks.has(linkIndexOf(body) ?? 0);
    }
    const route = readRoute(body);
    // Routes that are added by Warren lead into tunnels, or are these.
    if (route === undefined || route.protocol === ROUTE_PROTOCOL && type === MessageType.RTM_NEWROUTE) {
      return false;
    }
    const { address, length } = route.destination;
    return this.wanted.values().some((wanted) => startsWith(wanted, address, length));
  }
}

/** Tells whether a route's link is a tunnel's device, this one's or another's, or it has none. */
function isOwn(index: number | undefined, device: number | undefined): boolean {
  return index === undefined || ownLinks.has(index) || index === device;
}

/** The host route to one address. */
class LinuxHostRoute implements HostRoute {
  readonly #system: LinuxHostRoutes;
  readonly #address: Address;
  readonly #tables: readonly number[];
  readonly #interfaceName: string | undefined;
  /** True if the main table decides about the way, and no other program's policy rule. */
  #isListed = true;
  #path: Path | "local" | undefined;
  #made: Change[] = [];

  constructor(
    system: LinuxHostRoutes,
    address: Address,
    tables: readonly number[],
    interfaceName: string | undefined,
  ) {
    this.#system = system;
    this.#address = address;
    this.#tables = tables;
    this.#interfaceName = interfaceName;
    this.#use(this.#choose());
  }

  refresh(): void {
    const path = this.#isListed
      ? this.#system.listedPath(this.#address, this.#interfaceName)
      : this.#isLinkGone
      ? this.#choose()
      : this.#path;
    if (path === "local" || isSame(path, this.#path) && this.#isPresent) return;
    this.remove();
    this.#use(path);
  }

  remove(): void {
    this.#system.wanted.delete(this.#address.bytes);
    for (const change of this.#made.splice(0)) this.#system.unmake(change);
  }

  #choose(): Path | "local" | undefined {
    const asked = this.#system.askedPath(this.#address, this.#interfaceName);
    const listed = asked === "local"
      ? undefined
      : this.#system.listedPath(this.#address, this.#interfaceName);
    this.#isListed = asked !== "local" &&
      (asked === undefined || listed !== undefined && isSame(asked, listed));
    return asked ?? listed;
  }

  get #isLinkGone(): boolean {
    const path = this.#path;
    return path !== undefined && path !== "local" && !this.#system.hasLink(path.index!);
  }

  /** Tells whether the kernel still has the routes: those through a link go with it. */
  get #isPresent(): boolean {
    const { bytes } = this.#address;
    return this.#tables.every((wanted) =>
      this.#system.routes.some(({ destination: { address, length }, table }) =>
        table === wanted && length === bytes.length * 8 && startsWith(bytes, address, length)
      )
    );
  }

  #use(path: Path | "local" | undefined): void {
    this.#path = path;
    if (path === "local") return;
    const { bytes } = this.#address;
    this.#system.wanted.add(bytes);
    const destination = { address: bytes, length: bytes.length * 8 };
    for (const table of this.#tables) {
      const { index, gateway, via, source } = path ?? {};
      const route: RouteOptions = path === undefined ? { destination, table, type: RouteType.Unreachable } : {
        destination,
        table,
        ...(gateway === undefined ? {} : { gateway }),
        ...(via === undefined ? {} : { via }),
        onLink: gateway !== undefined || via !== undefined,
        // For IPv6, the source is chosen anew for each packet: temporary addresses come and go.
        ...(source === undefined || bytes.length > 4 ? {} : { source }),
      };
      const change = this.#system.make(index, route);
      if (change !== undefined) this.#made.push(change);
    }
  }
}

/** Tells whether two ways are the same. Their sources are the kernel's choice, and may differ. */
function isSame(a: Path | "local" | undefined, b: Path | "local" | undefined): boolean {
  if (a === undefined || b === undefined || a === "local" || b === "local") return a === b;
  return a.index === b.index && a.gateway?.toHex() === b.gateway?.toHex() &&
    a.via?.toHex() === b.via?.toHex();
}
