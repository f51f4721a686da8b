/**
 * Configuration of the interface of a device, which is undone when the device closes.
 *
 * All routes go through the interface itself. When the descriptor is closed, even by a crash, the system removes the
 * addresses and routes, and on macOS the interface. `undo` removes the routes before that.
 */

import type { Prefix } from "../../lib/wire/address.ts";
import type { CheckedDeviceOptions, CheckedRoute } from "../options.ts";
import { halvesOf } from "../default_route.ts";
import type { Bsd } from "./bsd.ts";
import type { Interface } from "./interface.ts";
import { type InterfaceRoute, RouteSocket } from "./route_socket.ts";
import { bitsOf } from "./sockaddr.ts";

/**
 * Refuses options that the BSDs do not support, before anything is changed.
 *
 * @throws {Deno.errors.NotSupported} for policy rules, routing tables and metrics of routes.
 */
export function checkSupported(system: string, { name, rules, routes }: CheckedDeviceOptions): void {
  const refuse = (what: string) =>
    new Deno.errors.NotSupported(`Cannot open device "${name}": ${system} has no ${what}`);
  if (rules.length > 0) throw refuse("policy rules");
  if (routes.some(({ table }) => table !== undefined)) throw refuse("routing tables that a route can choose");
  if (routes.some(({ metric }) => metric !== undefined)) throw refuse("metrics of routes");
}

/** Returns the routes to install for a requested route: two halves for a default route, otherwise the route itself. */
export function halves({ to, via }: CheckedRoute): InterfaceRoute[] {
  return (to.length > 0 ? [to] : halvesOf(to)).map((to) => ({ to, via }));
}

/** The configuration of an interface. */
export class Setup {
  readonly #bsd: Bsd;
  readonly #interface: Interface;
  readonly #pointToPoint: boolean;
  readonly #routes: InterfaceRoute[] = [];

  /** Creates the setup without changing the interface. */
  constructor(bsd: Bsd, link: Interface, pointToPoint: boolean) {
    this.#bsd = bsd;
    this.#interface = link;
    this.#pointToPoint = pointToPoint;
  }

  /**
   * Configures the interface. After an error the caller calls `undo`.
   *
   * @throws {Deno.errors.PermissionDenied} when the process is not root.
   * @throws {DriverError} when the system refuses for another reason.
   */
  apply({ mtu, addresses, routes, up }: CheckedDeviceOptions): void {
    const link = this.#interface;
    if (mtu !== undefined && mtu !== link.mtu) link.setMtu(mtu);
    for (const prefix of addresses) link.addAddress(prefix, this.#pointToPoint);
    if (link.up !== up) link.setUp(up);
    using socket = new RouteSocket(this.#bsd);
    if (this.#pointToPoint) {
      addresses.filter(lacksRoute).forEach((to) => this.#add(socket, { to }));
    }
    for (const route of routes) {
      try {
        for (const half of halves(route)) this.#add(socket, half);
      } catch (error) {
        // `default` requests an IPv4 and an IPv6 route; the latter fails on a system without IPv6.
        if (route.isDefault !== true || route.to.address.family === 4) throw error;
        console.warn(`warren: ${(error as Error).message}: IPv6 traffic may bypass "${link.name}"`);
      }
    }
  }

  /**
   * Removes the routes, newest first.
   *
   * @throws {AggregateError} when some routes could not be removed; all other routes are removed.
   */
  undo(): void {
    if (this.#routes.length === 0) return;
    using socket = new RouteSocket(this.#bsd);
    const failures: unknown[] = [];
    for (const route of this.#routes.splice(0).reverse()) {
      try {
        socket.remove(route, this.#interface.index);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length === 0) return;
    throw new AggregateError(
      failures,
      `Cannot restore "${this.#interface.name}": some routes could not be removed`,
    );
  }

  #add(socket: RouteSocket, route: InterfaceRoute): void {
    socket.add(route, this.#interface.index);
    this.#routes.push(route);
  }
}

/** Reports whether the prefix of an address needs a route: for IPv6 the system adds it, and a /32 needs none. */
function lacksRoute({ address, length }: Prefix): boolean {
  return address.family === 4 && length < bitsOf(address);
}
