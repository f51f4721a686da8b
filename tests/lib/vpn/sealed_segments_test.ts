/** The sealed protocol's super-packets: segmented while they are sealed. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { type Packet, PacketPool } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Unsegmentable } from "@warren/tunnel/segment";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { SealedDrop } from "@warren/tunnel/vpn";
import { copy } from "../../../lib/split/copy.ts";
import { fakeCryptography } from "../../kit/fake_cryptography.ts";
import { hex, makePartial, wrongChecksum } from "../../kit/packets.ts";
import { type Datagram, KEY, Machine, packet } from "./_machine.ts";

const SRC = 0x0a090002;
const DST = 0x0a090001;

/** Makes a super-packet as a device with offload delivers it. */
function superPacket(pool: PacketPool, size: number, segmentSize: number, isTcp: boolean, id = 0): Packet {
  const packet = pool.take(size)!;
  for (let i = 0; i < size; i++) packet.bytes[packet.offset + i] = i * 7 + (i >> 8) + id;
  const options = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2);
  if (isTcp) {
    Tcp.encode(packet, {
      srcPort: 5000,
      dstPort: 80,
      seq: 7 + id,
      ack: 9,
      flags: Tcp.Ack | Tcp.Psh,
      options,
    });
  } else Udp.encode(packet, { srcPort: 5000, dstPort: 443 });
  Ipv4.encode(packet, { src: SRC, dst: DST, protocol: isTcp ? 6 : 17, id });
  makePartial(packet, packet.offset + 20, isTcp ? 16 : 6);
  packet.segmentSize = segmentSize;
  return packet;
}

function machine(pool: PacketPool): Machine {
  const client = new Machine(fakeCryptography(1), { role: "connect", key: KEY, keepalive: 0 }, { pool });
  client.send();
  return client;
}

/** Puts packets into a machine's stages without a copy. */
function push(client: Machine, ...packets: Packet[]): Datagram[] {
  const { pipeline, ledger } = {
    pipeline: client.pipeline.pipeline,
    ledger: client.pipeline.pipeline.ledger,
  };
  for (const packet of packets) {
    pipeline.outbound[0]!.push(packet);
    ledger.counters.outbound.packetsIn++;
  }
  return client.pass().datagrams;
}

function opened(datagrams: Datagram[]): Uint8Array[] {
  const pool = new PacketPool({ small: 64, large: 4 });
  const server = new Machine(fakeCryptography(2), { role: "listen", key: KEY }, { address: 2, pool });
  const packets = datagrams.flatMap((datagram) => server.receive(datagram).packets);
  deepEqual(server.stats.dropped, {});
  return packets;
}

for (const isTcp of [true, false]) {
  Deno.test(`Sealed segments ${isTcp ? "TCP" : "UDP"} super-packets while it seals them, each segment complete`, () => {
    for (
      const [size, segmentSize] of [[65_000, 1448], [2896, 1448], [100, 1448], [9000, 100], [1000, 8], [
        0,
        1000,
      ]] as const
    ) {
      const pool = new PacketPool({ small: 512, large: 4 });
      const client = machine(pool);
      const whole = superPacket(pool, size, segmentSize, isTcp);
      const expected = copy(whole);
      const packets = opened(push(client, whole));
      deepEqual(packets.map(hex), expected.map(hex), `${size} in ${segmentSize}`);
      for (const bytes of packets) equal(wrongChecksum(bytes), "");
      ok(client.pipeline.balanced);
      equal(pool.taken, 0);
    }
  });
}

Deno.test("Sealed keeps the order of super-packets and ordinary packets, and their marks", () => {
  const pool = new PacketPool({ small: 512, large: 4 });
  const client = machine(pool);
  const ordinary = (number: number) => pool.from(packet("10.9.0.2", "10.9.0.1", number))!;
  const marked = superPacket(pool, 2000, 1000, false, 2);
  marked.mark = 7;
  const packets = [
    ordinary(1),
    superPacket(pool, 3000, 1000, true, 1),
    ordinary(2),
    ordinary(3),
    marked,
  ];
  const expected = packets.flatMap((packet) => copy(packet));
  deepEqual(opened(push(client, ...packets)).map(hex), expected.map(hex));
  equal(client.last.mark, 7);
});

Deno.test("Sealed completes a partial checksum", () => {
  const pool = new PacketPool({ small: 512, large: 4 });
  const whole = superPacket(pool, 500, 0, true);
  const [packet] = opened(push(machine(pool), whole));
  equal(wrongChecksum(packet!), "");
});

Deno.test("Sealed drops a super-packet that cannot be segmented, and the rest of one when the pool is empty", () => {
  const pool = new PacketPool({ small: 20, large: 2 });
  const client = machine(pool);
  const syn = superPacket(pool, 3000, 1000, true);
  syn.bytes[syn.offset + 33]! |= Tcp.Syn;
  deepEqual(push(client, syn), []);
  equal(push(client, superPacket(pool, 30_000, 1000, true)).length, 20);
  deepEqual(client.stats.dropped, { [Unsegmentable.Flags]: 1, [SealedDrop.PoolEmpty]: 1 });
  ok(client.pipeline.balanced);
});

Deno.test("Sealed makes room in a slot that is full, and drops what has none", () => {
  const pool = new PacketPool({ small: 4, large: 0 });
  const client = machine(pool);
  const size = 2048 - 256 - 48 - 28;
  const make = (): Packet => {
    const packet = pool.take(size)!;
    packet.bytes.fill(7, packet.offset, packet.offset + size);
    Udp.encode(packet, { srcPort: 5000, dstPort: 443 });
    Ipv4.encode(packet, { src: SRC, dst: DST, protocol: 17 });
    // The whole slot behind the headroom, as after `strip` and growth.
    packet.offset += 28;
    packet.bytes.copyWithin(packet.offset, packet.offset - 28, packet.offset + size);
    return packet;
  };
  const full = make();
  equal(full.tailroom, 0);
  const expected = copy(full);
  deepEqual(opened(push(client, full)).map(hex), expected.map(hex));
  const crowded = make();
  crowded.bytes.copyWithin(crowded.slotStart + 8, crowded.offset, crowded.offset + crowded.length);
  crowded.offset = crowded.slotStart + 8;
  deepEqual(push(client, crowded), []);
  deepEqual(client.stats.dropped, { [SealedDrop.NoRoom]: 1 });
});

Deno.test("Sealed encrypts nothing outside a packet's slot", () => {
  const pool = new PacketPool({ small: 4, large: 0 });
  for (const [offset, length] of [[-100, 50], [0, 3000], [256, 0], [256, 4000], [NaN, 50]] as const) {
    const client = machine(pool);
    const packet = pool.take(100)!;
    packet.bytes.fill(0xa5);
    packet.to = 1;
    packet.offset = packet.slotStart + offset;
    packet.length = length;
    deepEqual(push(client, packet), []);
    ok(packet.bytes.every((byte) => byte === 0xa5));
    ok(client.pipeline.balanced);
  }
});

Deno.test("Sealed counts a super-packet's segments against the quota", () => {
  const pool = new PacketPool({ small: 512, large: 4 });
  const client = machine(pool);
  const peer = client.sealed.peers.byName("peer")!;
  peer.quota = 3 * 1052 + 2 * 1052 - 1;
  equal(push(client, superPacket(pool, 3000, 1000, true)).length, 3);
  equal(peer.bytesOut, 3 * 1052);
  deepEqual(push(client, superPacket(pool, 2000, 1000, true)), []);
});
