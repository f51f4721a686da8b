/** Openers of far ends, and what a tunnel does for them. */

import type { Address } from "../../lib/wire/address.ts";
import type { TunnelEnd } from "../../lib/core/mod.ts";

/** A tunnel's services for its far end, while that opens and as long as it is open. */
export interface FarEndContext {
  /** Aborted when the tunnel closes. An opener that still works then rejects with its reason, at once. */
  readonly signal: AbortSignal;
  /**
   * Has the far end's own packets to an address leave beside the tunnel, whose routes may cover it. To be called
   * before each use of an address: at the opening, by a reconnection, for a new peer. Calling it again is cheap.
   *
   * @param interfaceName The interface that they leave by, where the far end is bound to one.
   */
  bypass(address: Address, interfaceName?: string): void;
  /** Looks names up, which the tunnel's routes do not hinder: the system's name servers are reached beside it. */
  lookUp<Result>(look: () => Promise<Result>): Promise<Result>;
}

/** Opens a far end when its tunnel opens: what `udp()`, `websocket()` and `device()` return. */
export type EndOpener = (context?: FarEndContext) => TunnelEnd | Promise<TunnelEnd>;

/** The context of a far end that is opened without a tunnel. */
export const WITHOUT_TUNNEL: FarEndContext = {
  signal: new AbortController().signal,
  bypass() {},
  lookUp: (look) => look(),
};
