/** What tshark thinks of the segments that super-packets are cut into, and of the super-packets made of them. */

import { PacketBatch, PacketPool } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Coalescer, Segmenter } from "@warren/tunnel/segment";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { deepEqual, equal } from "node:assert/strict";
import { systemTest } from "../kit/system.ts";
import { captureFile, judge } from "../kit/traffic.ts";

// Implementation
const TCP = 6;
const UDP = 17;

systemTest(
  "tshark finds nothing wrong with cut packets and grouped ones",
  { programs: ["tshark"] },
  async () => {
    const pool = new PacketPool();
    const segmenter = new Segmenter();
    const coalescer = new Coalescer({ udp: true });
    const segments: Uint8Array[] = [];
    const joined: Uint8Array[] = [];
    for (const version of [4, 6]) {
      for (const protocol of [TCP, UDP]) {
        for (const [size, segmentSize] of [[30_000, 1448], [2999, 1000], [700, 7], [1, 1]] as const) {
          const packet = pool.from(Uint8Array.from({ length: size }, (_, i) => i * 31))!;
          if (protocol === UDP) Udp.encode(packet, { srcPort: 40_000, dstPort: 9 });
          else {
            const options = { timestamps: { tsval: 1, tsecr: 2 } };
            Tcp.encode(packet, {
              srcPort: 40_000,
              dstPort: 9,
              seq: -size >>> 0,
              ack: 1,
              flags: Tcp.Ack,
              options,
            });
          }
          if (version === 4) Ipv4.encode(packet, { src: 0x0a000001, dst: 0x0a000002, protocol });
          else {
            const [src, dst] = [1, 2].map((last) =>
              Uint8Array.from({ length: 16 }, (_, i) => i === 15 ? last : 0xfd)
            );
            Ipv6.encode(packet, { src: src!, dst: dst!, nextHeader: protocol });
          }
          packet.segmentSize = segmentSize;
          const batch = new PacketBatch({ packets: 200, bytes: 1 << 20 });
          equal(segmenter.start(packet), undefined);
          while (segmenter.remaining > 0) batch.push(segmenter.next(pool)!);
          for (const segment of batch) segments.push(segment.data.slice());
          const count = coalescer.group(batch);
          for (const group of coalescer.groups.slice(0, count)) {
            group.seal();
            const pieces = group.packets.slice(0, group.length).map((piece, i) =>
              piece.data.slice(i === 0 ? 0 : group.headerLength)
            );
            joined.push(finished(pieces, group.packets[0]!.checksumStart, group.packets[0]!.checksumOffset));
          }
          for (const segment of batch) pool.give(segment);
          pool.give(packet);
        }
      }
    }
    for (const packets of [segments, joined]) {
      deepEqual(await judge(captureFile(packets)), { packets: packets.length, faults: [] });
    }
  },
);

/** The pieces as the kernel would finish them: what stands in the field is summed with the rest (RFC 1071). */
function finished(pieces: readonly Uint8Array[], start: number, offset: number): Uint8Array {
  const bytes = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
  if (start === 0) return bytes;
  let total = 0;
  for (let i = start; i < bytes.length; i++) total += (i - start) % 2 === 0 ? bytes[i]! * 256 : bytes[i]!;
  while (total > 0xffff) total = total % 0x10000 + Math.floor(total / 0x10000);
  bytes.set([(0xffff - total) >> 8, 0xffff - total & 0xff], start + offset);
  return bytes;
}
