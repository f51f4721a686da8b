/** Copies packets to arrays that a script may keep and change. */

import { finishChecksum } from "../core/checksum.ts";
import type { Packet } from "../core/packet.ts";
import { Segmenter } from "./segmenter.ts";

const segmenter = new Segmenter();

/**
 * Returns a copy of a packet's bytes with a complete checksum; for a super-packet, a copy of each segment. The result is
 * empty, and the packet marked `malformed`, if it cannot be segmented or is outside its slot.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { copy } from "@warren/tunnel";
 * import { PacketPool } from "@warren/tunnel/core";
 *
 * const pool = new PacketPool({ small: 1, large: 0 });
 * const packet = pool.from(Uint8Array.of(0x45, 0, 0, 20))!;
 * const [bytes] = copy(packet);
 * pool.give(packet);
 * assert.deepEqual(bytes, Uint8Array.of(0x45, 0, 0, 20));
 * ```
 */
export function copy(packet: Packet): Uint8Array[] {
  if (packet.segmentSize !== 0) {
    segmenter.start(packet);
    return Array.from({ length: segmenter.remaining }, () => segmenter.nextCopy()!);
  }
  if (!packet.isInSlot) {
    packet.malformed = true;
    return [];
  }
  const bytes = packet.bytes.slice(packet.offset, packet.offset + packet.length);
  if (packet.checksumStart !== 0) {
    finishChecksum(bytes, 0, bytes.length, packet.checksumStart, packet.checksumOffset);
  }
  return [bytes];
}
