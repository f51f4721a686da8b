/** Openers of far ends, and the services that a tunnel offers them. */

import type { Address } from "../../lib/wire/address.ts";
import type { TunnelEnd } from "../../lib/core/mod.ts";

/** Services that a tunnel offers its far end, while it opens and while it is open. */
export interface FarEndContext {
  /** Aborts when the tunnel closes; an unfinished opener must then reject with the abort reason at once. */
  readonly signal: AbortSignal;
  /** Default of the `payload` option of the end: `"any"` for the end below a VPN protocol. @default {"ip"} */
  readonly payload?: NonNullable<TunnelEnd["payload"]>;
  /** Values of the script's own flags; empty outside of a script. */
  readonly flags: Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;
  /**
   * Routes the packets that the far end itself sends to an address outside the tunnel, whose routes may cover the
   * address. Must be called before each use of an address: when opening, when reconnecting, and for a new peer.
   * Repeated calls are cheap.
   *
   * @param interfaceName The interface that the far end is bound to, if any.
   */
  bypass(address: Address, interfaceName?: string): void;
  /** Runs a name look-up, with the system's name servers routed outside the tunnel. */
  lookUp<Result>(look: () => Promise<Result>): Promise<Result>;
}

/** Function that opens a far end when its tunnel opens, as returned by `udp()`, `websocket()` and `device()`. */
export type EndOpener = (context?: FarEndContext) => TunnelEnd | Promise<TunnelEnd>;

/** Context of a far end that opens without a tunnel. */
export const WITHOUT_TUNNEL: FarEndContext = {
  signal: new AbortController().signal,
  flags: {},
  bypass() {},
  lookUp: (look) => look(),
};
