/** Far ends: what opens them, by object and by URL. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import type { EndOpener } from "../tunnel.ts";

/** Opens what a tunnel's `far` option says. */
export async function openFarEnd(far: TunnelEnd | EndOpener | string | undefined): Promise<TunnelEnd | undefined> {
  if (typeof far === "string") throw new SyntaxError(`Cannot open far end "${far}"`);
  return typeof far === "function" ? await far() : far;
}

/** Checks a far end's URL without opening it. */
export function checkFarUrl(far: string): void {
  if (!/^(udp|ws|wss|tun):/.test(far)) throw new SyntaxError(`Cannot parse far end "${far}"`);
}
