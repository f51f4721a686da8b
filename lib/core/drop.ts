/** Dropping a packet, for functions that say whether it goes on. */

import type { Packet, StageContext } from "./mod.ts";

/** Drops a packet: it does not go on. */
export function drop(packet: Packet, reason: string, context: StageContext): false {
  context.drop(packet, reason);
  return false;
}
