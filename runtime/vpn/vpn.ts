/** The opener of VPN ends. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { checkOptions } from "../../lib/core/options.ts";
import type { VpnProtocol } from "../../lib/vpn/protocol.ts";
import { type EndOpener, WITHOUT_TUNNEL } from "../transport/end_opener.ts";
import { openerOf } from "../transport/far_url.ts";
import { openFarEnd } from "../transport/mod.ts";
import { checkProtocol, VpnEnd } from "./vpn_end.ts";

/** Options of {@linkcode vpn}. */
export interface VpnOptions {
  /**
   * The end below: an open end with `payload: "any"`, an opener such as `udp({ listen: 4500 })`, or a URL. Openers and
   * URLs open with that payload.
   */
  over: TunnelEnd | EndOpener | string;
}

/**
 * Far end that runs a VPN protocol over another end, so that the tunnel sees plain packets. A protocol object belongs to
 * one tunnel; see {@linkcode VpnProtocol} and {@linkcode VpnEnd}.
 *
 * @throws {SyntaxError} when a URL does not parse.
 * @throws {TypeError} when the protocol lacks a part, and for an unknown option or one of the wrong type.
 * @throws {RangeError} when the protocol's overhead is out of range. The opener rejects with a `TypeError` when the end
 * below carries only IP packets, and with the errors of that end's opener.
 *
 * @example A protocol over UDP
 * ```ts
 * import { script, udp, vpn, type VpnProtocol } from "@warren/tunnel";
 *
 * const options = { address: "10.9.0.1/24", mtu: 1400 };
 * export const tunnel = (protocol: VpnProtocol) =>
 *   script(import.meta, { ...options, far: vpn(protocol, { over: udp({ listen: 4500 }) }) });
 * ```
 */
export function vpn(protocol: VpnProtocol, options: VpnOptions): EndOpener {
  checkProtocol(protocol);
  checkOptions("open a VPN end", options, { over: "any" }, ["over"]);
  const over = openerOf(options.over);
  return async (context = WITHOUT_TUNNEL) => {
    const below = (await openFarEnd(over, { ...context, payload: "any" }, "over"))!;
    try {
      return new VpnEnd(protocol, below);
    } catch (error) {
      below.close();
      await below.closed;
      throw error;
    }
  };
}
