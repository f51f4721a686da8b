/**
 * Makes an interface what its options say.
 *
 * Every route is through the interface itself. The system removes its addresses and routes with the descriptor; on
 * macOS the interface goes, too. Still the routes are taken back before it is closed.
 */

import type { Prefix } from "../../lib/wire/address.ts";
import { type CheckedDeviceOptions, type CheckedRoute, halvesOf } from "../options.ts";
import type { Bsd } from "./bsd.ts";
import type { Interface } from "./interface.ts";
import { type InterfaceRoute, RouteSocket } from "./route_socket.ts";
import { bitsOf } from "./sockaddr.ts";

/**
 * Refuses what the BSDs have no counterpart for, before anything is touched.
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

/** The routes that stand for one of the options: one to everywhere is two to a half each. */
export function halves({ to, via }: CheckedRoute): InterfaceRoute[] {
  return (to.length > 0 ? [to] : halvesOf(to)).map((to) => ({ to, via }));
}

/** What was made of an interface, and how it is taken back. */
export class Setup {
  readonly #bsd: Bsd;
  readonly #interface: Interface;
  readonly #pointToPoint: boolean;
  readonly #routes: InterfaceRoute[] = [];

  /** For this interface. */
  constructor(bsd: Bsd, own: Interface, pointToPoint: boolean) {
    this.#bsd = bsd;
    this.#interface = own;
    this.#pointToPoint = pointToPoint;
  }

  /**
   * Makes the interface what the options say.
   *
   * @throws {Error} the system's, with its own words; the caller undoes what was made.
   */
  apply({ mtu, addresses, routes, up }: CheckedDeviceOptions): void {
    const own = this.#interface;
    if (mtu !== undefined && mtu !== own.mtu) own.setMtu(mtu);
    for (const prefix of addresses) own.addAddress(prefix, this.#pointToPoint);
    if (own.up !== up) own.setUp(up);
    using socket = new RouteSocket(this.#bsd);
    if (this.#pointToPoint) {
      addresses.filter(lacksNetwork).forEach((to) => this.#add(socket, { to, via: undefined }));
    }
    for (const route of routes) {
      try {
        for (const half of halves(route)) this.#add(socket, half);
      } catch (error) {
        // `default` covers IPv6 as far as the system has it.
        if (route.isDefault !== true || route.to.address.family === 4) throw error;
        console.warn(`warren: ${(error as Error).message}: IPv6 may pass beside "${own.name}"`);
      }
    }
  }

  /**
   * Takes back the routes, newest first.
   *
   * @throws {AggregateError} when one could not be; the rest was.
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
    throw new AggregateError(failures, `Cannot put "${this.#interface.name}" back as it was`);
  }

  #add(socket: RouteSocket, route: InterfaceRoute): void {
    socket.add(route, this.#interface.index);
    this.#routes.push(route);
  }
}

/** Whether the route to an address's network is missing: IPv6 makes one, and for a whole address there is none. */
function lacksNetwork({ address, length }: Prefix): boolean {
  return address.family === 4 && length < bitsOf(address);
}
