/** Copying packets without allocating. */

import type { Packet } from "./core/packet.ts";
import type { PacketPool } from "./core/pool.ts";

/** A copy of a packet as it stands, super-packets and unfinished sums too; `undefined` when the pool has no slot. */
export function copyPacket(packet: Packet, pool: PacketPool): Packet | undefined {
  const { offset, length } = packet;
  const copy = pool.take(length);
  if (copy === undefined) return undefined;
  copyBytes(packet.view, offset, length, copy.view, copy.offset);
  copy.segmentSize = packet.segmentSize;
  copy.checksumStart = packet.checksumStart;
  copy.checksumOffset = packet.checksumOffset;
  copy.time = packet.time;
  copy.mark = packet.mark;
  return copy;
}

/** Copies without a view of the source, which would be allocated: words, and the bytes behind them. */
export function copyBytes(from: DataView, start: number, length: number, to: DataView, at: number): void {
  let i = 0;
  for (; i + 4 <= length; i += 4) to.setUint32(at + i, from.getUint32(start + i));
  for (; i < length; i++) to.setUint8(at + i, from.getUint8(start + i));
}
