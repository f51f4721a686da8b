/** Copies packets and their metadata without allocation. */

import { ENDPOINT_LENGTH, type Packet } from "./packet.ts";
import type { PacketPool } from "./pool.ts";

/**
 * Returns an exact copy, which may be a super-packet or have a partial checksum; `undefined` when the pool has no slot, or
 * the packet is outside its slot.
 */
export function copyPacket(packet: Packet, pool: Pick<PacketPool, "take">): Packet | undefined {
  if (!packet.isInSlot) return undefined;
  const { offset, length } = packet;
  const copy = pool.take(length);
  if (copy === undefined) return undefined;
  copyBytes(packet.view, offset, length, copy.view, copy.offset);
  copy.segmentSize = packet.segmentSize;
  copy.checksumStart = packet.checksumStart;
  copy.checksumOffset = packet.checksumOffset;
  copyMetadata(copy, packet);
  return copy;
}

/** Copies `from`, `to`, `mark`, `time` and the endpoint. */
export function copyMetadata(packet: Packet, from: Packet): void {
  packet.from = from.from;
  packet.to = from.to;
  packet.mark = from.mark;
  packet.time = from.time;
  packet.hasEndpoint = from.hasEndpoint;
  for (let i = 0; i < ENDPOINT_LENGTH; i += 4) {
    packet.view.setInt32(packet.slotEnd + i, from.view.getInt32(from.slotEnd + i));
  }
}

/** Copies bytes in words: `Uint8Array.set` would need a view of the source, an allocation. */
export function copyBytes(from: DataView, start: number, length: number, to: DataView, at: number): void {
  let i = 0;
  for (; i + 4 <= length; i += 4) to.setUint32(at + i, from.getUint32(start + i));
  for (; i < length; i++) to.setUint8(at + i, from.getUint8(start + i));
}
