/** The opener of VPN ends. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { checkOptions } from "../../lib/core/options.ts";
import type { VpnProtocol } from "../../lib/vpn/protocol.ts";
import { type EndOpener, type FarEndContext, WITHOUT_TUNNEL } from "../transport/end_opener.ts";
import { openerOf } from "../transport/far_url.ts";
import { openFarEnd } from "../transport/mod.ts";
import { checkProtocol, VpnEnd } from "./vpn_end.ts";

/**
 * A VPN protocol, or a function that creates one for each tunnel, such as with a key from `context.flags`. It gets the
 * open end below, which it must not use.
 */
export type VpnProtocolSource =
  | VpnProtocol
  | ((context: FarEndContext, below: TunnelEnd) => VpnProtocol | Promise<VpnProtocol>);

/** Options of {@linkcode vpn}. */
export interface VpnOptions {
  /**
   * The end below: an open end with `payload: "any"`, an opener such as `udp({ listen: 4500 })`, or a URL. Openers and
   * URLs open with that payload.
   */
  over: TunnelEnd | EndOpener | string;
}

/** Protocol that each opener was created with, so that `--far` replaces the end below it. */
const protocols = new WeakMap<object, VpnProtocolSource>();

/**
 * Far end that runs a VPN protocol over another end, so that the tunnel sees plain packets. A protocol object belongs to
 * one tunnel; see {@linkcode VpnProtocol} and {@linkcode VpnEnd}. In a script, `--far URL` replaces the end below, and the
 * protocol stays.
 *
 * @throws {SyntaxError} when a URL does not parse.
 * @throws {TypeError} when the protocol lacks a part, and for an unknown option or one of the wrong type.
 * @throws {RangeError} when the protocol's overhead is out of range. The opener rejects with the errors of the end below,
 * and with a `TypeError` when that end carries only IP packets.
 *
 * @example A protocol over UDP, with a key from the command line
 * ```ts
 * import { script, udp, vpn, type VpnProtocol } from "@warren/tunnel";
 *
 * export const vpnScript = (create: (key: string) => VpnProtocol) => {
 *   const far = vpn(({ flags }) => create(String(flags.key)), { over: udp({ listen: 4500 }) });
 *   const flags = { key: { type: "string", required: true } } as const;
 *   return script(import.meta, { address: "10.9.0.1/24", mtu: 1400, far, flags }, (tunnel) => tunnel.run());
 * };
 * ```
 */
export function vpn(protocol: VpnProtocolSource, options: VpnOptions): EndOpener {
  if (typeof protocol !== "function") checkProtocol(protocol);
  checkOptions("open a VPN end", options, { over: "any" }, ["over"]);
  const over = openerOf(options.over);
  const open = async (context: FarEndContext = WITHOUT_TUNNEL) => {
    const below = (await openFarEnd(over, { ...context, payload: "any" }, "over"))!;
    try {
      const made = typeof protocol === "function" ? await protocol(context, below) : protocol;
      return new VpnEnd(made, below);
    } catch (error) {
      below.close();
      await below.closed;
      throw error;
    }
  };
  protocols.set(open, protocol);
  return open;
}

/** Returns the far end of a script for `--far URL`: the URL or, if `far` is a VPN end, its protocol over the URL. */
export function placeBelow(far: object | string | undefined, url: string): EndOpener | string {
  const protocol = typeof far === "function" ? protocols.get(far) : undefined;
  return protocol === undefined ? url : vpn(protocol, { over: url });
}
