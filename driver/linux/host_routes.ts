/**
 * Host routes that keep packets to the far end out of the tunnels on Linux.
 *
 * A host route first uses the path that the kernel chooses (RTM_GETROUTE). If that path leads into a tunnel, it uses
 * the best route in the main or default table that does not.
 *
 * A host route whose path comes from one of these tables follows their later changes. Any other path was chosen by a
 * policy rule of another program, and is kept until its link is removed. While there is no path, the host route is
 * `unreachable`, so that packets to the far end fail instead of entering the tunnel.
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

// Specification: include/uapi/linux/rtnetlink.h
const RT_TABLE_DEFAULT = 253;

// Implementation
/** resolv.conf(5), and the file in which systemd-resolved lists its upstream servers. */
const RESOLVER_FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/** Link indexes of the devices that this process has open: no path that bypasses a tunnel may lead through them. */
export const ownLinks: Set<number> = new Set();

/** A path to an address: the link, the next hop if there is one, and the source address. */
type Path = Pick<Route, "index" | "gateway" | "via" | "source">;

/** The host routes of one tunnel. */
export class LinuxHostRoutes implements HostRoutes {
  readonly #deviceName: string;
  readonly #netlink: Netlink;
  readonly #journal: Journal;
  readonly #changes: NetlinkSocket;
  /** Addresses that have a host route. */
  readonly wanted = new Set<Uint8Array>();
  /** The kernel's routes, cached while one event is handled. */
  #routes: Route[] | undefined;

  /** Creates the host routes of the tunnel with this device name, before or after the device is opened. */
  constructor(deviceName: string) {
    this.#deviceName = deviceName;
    // Cleans up after crashes before any route is added. Otherwise, the clean-up when the device is opened could remove
    // a route added here, if a crashed process had added the same route.
    recover();
    this.#journal = new Journal(deviceName);
    using undo = new DisposableStack();
    this.#netlink = undo.use(Netlink.open());
    const { Link, Ipv4Address, Ipv6Address, Ipv4Route, Ipv6Route } = RTMGRP;
    // Links and addresses are included because the kernel does not report routes that disappear with them.
    this.#changes = new NetlinkSocket(
      Link | Ipv4Address | Ipv6Address | Ipv4Route | Ipv6Route,
      SOCK_NONBLOCK,
    );
    undo.move();
  }

  get descriptor(): number {
    return this.#changes.descriptor;
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
    const changed = this.#changes.drain((message) => this.#isRelevant(message));
    if (changed) this.#routes = undefined;
    return changed;
  }

  close(): void {
    this.#journal.close();
    this.#netlink.close();
    this.#changes.close();
  }

  /** Returns the path that the kernel chooses; `undefined` when there is none, or it leads into a tunnel. */
  currentPath(address: Address, interfaceName: string | undefined): Path | "local" | undefined {
    const only = this.#indexOf(interfaceName);
    if (interfaceName !== undefined && only === undefined) return undefined;
    const route = this.#netlink.routeTo(address.bytes, only);
    if (route?.type === RouteType.Local) return "local";
    if (route?.type !== RouteType.Unicast) return undefined;
    return isTunnelOrNone(route.index, this.#indexOf(this.#deviceName)) ? undefined : route;
  }

  /** Reports whether a link exists. */
  hasLink(index: number): boolean {
    return this.#netlink.link(index) !== undefined;
  }

  /** Returns the best route in the main or default table, except for Warren's own routes and those into a tunnel. */
  tablePath({ bytes }: Address, interfaceName: string | undefined): Path | undefined {
    const only = this.#indexOf(interfaceName);
    if (interfaceName !== undefined && only === undefined) return undefined;
    let best: Route | undefined;
    const device = this.#indexOf(this.#deviceName);
    for (const route of this.routes) {
      const { destination: { address, length }, type, table, index, protocol, metric = 0 } = route;
      if (type !== RouteType.Unicast || (table !== MAIN_TABLE && table !== RT_TABLE_DEFAULT)) continue;
      if (isTunnelOrNone(index, device) || only !== undefined && index !== only) continue;
      // Warren's host routes, and routes into the tunnels of other processes.
      if (protocol === ROUTE_PROTOCOL) continue;
      if (!startsWith(bytes, address, length)) continue;
      const longer = length - (best?.destination.length ?? -1);
      if (longer > 0 || longer === 0 && metric < (best!.metric ?? 0)) best = route;
    }
    return best;
  }

  /** Routes in all tables. */
  get routes(): Route[] {
    return this.#routes ??= this.#netlink.routes();
  }

  /** Adds a route; returns `undefined` if the same route already exists. */
  addRoute(index: number | undefined, route: RouteOptions): Change | undefined {
    const link = index === undefined ? undefined : this.#netlink.link(index);
    const change = addRoute(link, route);
    this.#journal.record([change]);
    try {
      this.#netlink.apply(change);
      return change;
    } catch (error) {
      this.#journal.forget([change]);
      if ((error as { code?: string }).code === "EEXIST") return undefined;
      throw error;
    }
  }

  /** Removes a route that {@linkcode LinuxHostRoutes.addRoute} added. */
  removeRoute(change: Change): void {
    this.#netlink.undo({ request: change.undo, description: `undo: ${change.description}` });
    this.#journal.forget([change]);
  }

  #indexOf(interfaceName: string | undefined): number | undefined {
    return interfaceName === undefined ? undefined : this.#netlink.link(interfaceName)?.index;
  }

  /** Reports whether a change may affect the path to one of the addresses. */
  #isRelevant({ type, body }: Message): boolean {
    if (type !== MessageType.RTM_NEWROUTE && type !== MessageType.RTM_DELROUTE) {
      return !ownLinks.has(linkIndexOf(body) ?? 0);
    }
    const route = readRoute(body);
    // The routes that Warren adds lead into tunnels or are host routes.
    if (route === undefined || route.protocol === ROUTE_PROTOCOL && type === MessageType.RTM_NEWROUTE) {
      return false;
    }
    const { address, length } = route.destination;
    return this.wanted.values().some((wanted) => startsWith(wanted, address, length));
  }
}

/** Reports whether a route leads into a tunnel of this process, or has no link. */
function isTunnelOrNone(index: number | undefined, device: number | undefined): boolean {
  return index === undefined || ownLinks.has(index) || index === device;
}

/** The host route to one address. */
class LinuxHostRoute implements HostRoute {
  readonly #system: LinuxHostRoutes;
  readonly #address: Address;
  readonly #tables: readonly number[];
  readonly #interfaceName: string | undefined;
  /** True if the path follows the main and default tables, false if a policy rule of another program chose it. */
  #isFromTable = true;
  #path: Path | "local" | undefined;
  #added: Change[] = [];

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
    this.#add(this.#choose());
  }

  refresh(): void {
    const path = this.#isFromTable
      ? this.#system.tablePath(this.#address, this.#interfaceName)
      : this.#isLinkGone
      ? this.#choose()
      : this.#path;
    if (path === "local" || isSame(path, this.#path) && this.#isPresent) return;
    this.remove();
    this.#add(path);
  }

  remove(): void {
    this.#system.wanted.delete(this.#address.bytes);
    for (const change of this.#added.splice(0)) this.#system.removeRoute(change);
  }

  #choose(): Path | "local" | undefined {
    const current = this.#system.currentPath(this.#address, this.#interfaceName);
    const best = current === "local" ? undefined : this.#system.tablePath(this.#address, this.#interfaceName);
    this.#isFromTable = current !== "local" &&
      (current === undefined || best !== undefined && isSame(current, best));
    return current ?? best;
  }

  get #isLinkGone(): boolean {
    const path = this.#path;
    return path !== undefined && path !== "local" && !this.#system.hasLink(path.index!);
  }

  /** True if the kernel still has the routes, which disappear with their link. */
  get #isPresent(): boolean {
    const { bytes } = this.#address;
    return this.#tables.every((wanted) =>
      this.#system.routes.some(({ destination: { address, length }, table }) =>
        table === wanted && length === bytes.length * 8 && startsWith(bytes, address, length)
      )
    );
  }

  /** Adds the routes over a path. */
  #add(path: Path | "local" | undefined): void {
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
        gateway,
        via,
        onLink: gateway !== undefined || via !== undefined,
        // For IPv6, the kernel chooses the source of each packet, as temporary addresses expire.
        source: bytes.length > 4 ? undefined : source,
      };
      const change = this.#system.addRoute(index, route);
      if (change !== undefined) this.#added.push(change);
    }
  }
}

/** Reports whether two paths have the same link and next hop. */
function isSame(a: Path | "local" | undefined, b: Path | "local" | undefined): boolean {
  if (a === undefined || b === undefined || a === "local" || b === "local") return a === b;
  return a.index === b.index && a.gateway?.toHex() === b.gateway?.toHex() &&
    a.via?.toHex() === b.via?.toHex();
}
