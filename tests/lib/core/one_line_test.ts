/** Packets, pools, batches and views, as a console shows them. */

import assert from "node:assert/strict";
import { inspect } from "node:util";
import { PacketBatch, PacketPool } from "../../../lib/core/mod.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { Udp } from "../../../lib/wire/udp.ts";

Deno.test("console.log() shows a packet, its batch, its pool and its headers as one line each", () => {
  const pool = new PacketPool({ small: 2, large: 1 });
  const packet = pool.from(Uint8Array.of(1, 2, 3))!;
  const line = "Packet(3 bytes at 256: 01 02 03)";
  assert.equal(Deno.inspect(packet), line);
  assert.equal(inspect(packet), line);
  assert.equal(Deno.inspect({ packet }), `{ packet: ${line} }`);
  const batch = new PacketBatch();
  batch.push(packet);
  assert.equal(Deno.inspect(batch), "PacketBatch(1 packets)");
  assert.equal(Deno.inspect(pool), "PacketPool(1 of 3 slots taken)");
  packet.length = 0;
  Udp.encode(packet, { srcPort: 1, dstPort: 2 });
  Ipv4.encode(packet, { src: 1, dst: 2, protocol: 17 });
  const shown = /^Udp at 20 of Packet\(28 bytes at 228: 45 00 00 1c( [0-9a-f]{2}){20} \.\.\.\)$/;
  assert.match(Deno.inspect(Udp.of(packet)), shown);
  assert.match(inspect(Ipv4.of(packet)), /^Ipv4 at 0 of Packet/);
  packet.segmentSize = 9;
  assert.match(Deno.inspect(packet), /28 bytes at 228, segments of 9: 45/);
  packet.length = 9000;
  assert.equal(Deno.inspect(packet), "Packet(9000 bytes at 228, moved out of its slot)");
});
