/** Drops a packet, in functions that return whether it passes. */

import type { Packet, StageContext } from "./mod.ts";

/** Drops a packet and returns `false`. */
export function drop(packet: Packet, reason: string, context: StageContext): false {
  context.drop(packet, reason);
  return false;
}
