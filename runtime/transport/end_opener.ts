/** Openers of far ends, and the services of a tunnel for them. */

import type { Address } from "../../lib/wire/address.ts";
import type { TunnelEnd } from "../../lib/core/mod.ts";

/** Services of a tunnel for its far end, while that opens and as long as it is open. */
export interface FarEndContext {
  /** Aborted when the tunnel closes. An opener that is not finished must then reject with its reason at once. */
  readonly signal: AbortSignal;
  /**
   * Routes the far end's own packets to an address past the tunnel, whose routes may cover it. Must be called before
   * each use of an address: on opening, on reconnecting, for a new peer. Repeated calls are cheap.
   *
   * @param interfaceName The interface that the far end is bound to, if it is.
   */
  bypass(address: Address, interfaceName?: string): void;
  /** Runs a look-up of names, with the system's name servers routed past the tunnel. */
  lookUp<Result>(look: () => Promise<Result>): Promise<Result>;
}

/** Function that opens a far end when its tunnel opens, as returned by `udp()`, `websocket()` and `device()`. */
export type EndOpener = (context?: FarEndContext) => TunnelEnd | Promise<TunnelEnd>;

/** Context of a far end that opens without a tunnel. */
export const WITHOUT_TUNNEL: FarEndContext = {
  signal: new AbortController().signal,
  bypass() {},
  lookUp: (look) => look(),
};
