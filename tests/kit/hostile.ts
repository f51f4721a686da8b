/** Packets that a stage must survive: valid ones, mutated ones, super-packets and partly summed ones. */

import { ok } from "node:assert/strict";
import { Direction, type Packet, type PacketBatch, type Stage } from "@warren/tunnel/core";
import { encodePacket } from "./packet_text.ts";
import { TestPipeline } from "./pipeline.ts";
import { Random } from "../../lib/core/random.ts";
import { hex } from "./packets.ts";

const VALID = [
  'udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"',
  "udp 10.9.0.1:5000 > 192.0.2.1:53 nodf ident 9 payload 1400",
  "tcp 10.9.0.1:5000 > 192.0.2.1:80 A seq 7 ack 1000 payload 1200",
  "tcp 10.9.0.1:5000 > 192.0.2.1:80 S seq 7 mss 1460 wscale 7 sackOK",
  "icmp 10.9.0.1 > 192.0.2.1 type 8 id 7 seq 1 payload 56",
  "icmp 192.0.2.9 > 10.9.0.1 type 3 code 4 rest 1300 { udp 10.9.0.1:5000 > 192.0.2.1:53 payload 1400 cut 60 }",
  "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 more payload 24",
  "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 offset 24 payload 24",
  "udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400",
  "tcp [fd09::1]:5000 > [2001:db8::1]:80 S seq 7 mss 1440",
  "icmp fd09::1 > 2001:db8::1 type 128 id 7 seq 1 payload 8",
  "icmp 2001:db8::9 > fd09::1 type 2 rest 1300 { udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400 cut 80 }",
  "ip fd09::1 > 2001:db8::1 protocol 17 ident 7 more payload 24",
  "ip fd09::1 > 2001:db8::1 protocol 17 ident 7 offset 24 payload 24",
  "ip fd09::1 > 2001:db8::1 protocol 253 ident 7 payload 24",
].map(encodePacket);

/** A packet, and what a driver with offload may say of it. */
function mutate(random: Random): Uint8Array {
  const valid = VALID[random.below(VALID.length)]!;
  const bytes = valid.slice(0, random.below(8) === 0 ? 1 + random.below(valid.length) : undefined);
  for (let count = random.below(4); count > 0 && bytes.length > 0; count--) {
    bytes[random.below(Math.min(bytes.length, 64))] = random.below(256);
  }
  return bytes;
}

/**
 * Sends random packets through a stage, both ways, in batches, while time passes, and asserts after each batch that none
 * was lost. Returns how many came through.
 */
export function survive(stage: Stage, seed: number, packets: number): number {
  const random = new Random(seed);
  const spoil = (packet: Packet): void => {
    if (random.below(4) === 0) packet.segmentSize = random.below(1500);
    if (random.below(4) !== 0) return;
    packet.checksumStart = random.below(60);
    packet.checksumOffset = random.below(20);
  };
  const spoilAll = (batch: PacketBatch): void => Array.from(batch).forEach(spoil);
  const test = new TestPipeline(
    { name: "spoil outbound", outbound: spoilAll },
    stage,
    { name: "spoil inbound", inbound: spoilAll },
  );
  for (let sent = 0; sent < packets;) {
    const direction = random.below(2) === 0 ? Direction.Outbound : Direction.Inbound;
    const batch = Array.from({ length: 1 + random.below(4) }, () => mutate(random));
    for (const bytes of batch) test.send(direction, bytes);
    sent += batch.length;
    if (random.below(8) === 0) test.now += random.below(20_000);
    try {
      test.settle();
    } catch (cause) {
      throw new Error(`seed ${seed}, packet ${sent}: ${batch.map(hex).join("; ")}`, { cause });
    }
    test.receive();
    ok(test.balanced, `the books do not balance: seed ${seed}, packet ${sent}`);
  }
  const { outbound, inbound } = test.pipeline.ledger.counters.snapshot(0);
  return outbound.packetsOut + inbound.packetsOut;
}
