/** Packets whose length or offset reaches into other slots: no code that copies packets copies bytes of the others. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Capture, PcapngWriter } from "@warren/tunnel/capture";
import { Direction, type Packet, PacketPool, type Stage, type StageContext } from "@warren/tunnel/core";
import { fragment } from "@warren/tunnel/fragment";
import { Impairment } from "@warren/tunnel/impair";
import { Ip } from "@warren/tunnel/ip";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Mirror } from "@warren/tunnel/mirror";
import { Udp } from "@warren/tunnel/udp";
import { copyPacket } from "../../../lib/core/copy_packet.ts";
import { allocateRing, PacketRing } from "../../../runtime/ring/ring.ts";
import { TestPipeline } from "../../kit/pipeline.ts";
import { ManualEnd } from "../../kit/tunnel.ts";
import { copy } from "../../../lib/split/copy.ts";

const SECRET = 0x5e;
const ADDRESS = Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
/** Mistakes of scripts with a packet. */
const SLIPS: Record<string, (packet: Packet) => void> = {
  "a length beyond the slot": (packet) => void (packet.length = 6000),
  "a length beyond the memory": (packet) => void (packet.length = 2 ** 30),
  "a length that is not a number": (packet) => void (packet.length = NaN),
  "an offset before the slot": (packet) => void (packet.offset -= 1000),
  "an offset behind the slot": (packet) => void (packet.offset = packet.slotEnd + 300),
  "a stripped offset and the old length": (packet) => void (packet.offset = packet.slotEnd - 10),
  "a header that claims more": (packet) => {
    packet.view.setUint16(packet.offset + (packet.bytes[packet.offset]! >> 4 === 4 ? 2 : 4), 6000);
    packet.length = 6040;
  },
};

/** A packet of IP, between slots that hold somebody's secret. */
function surrounded(test: TestPipeline | { pool: PacketPool }, version: 4 | 6): Packet {
  const { pool } = test;
  pool.bytes.fill(SECRET);
  const [before, packet, after] = [pool.take(1)!, pool.take(0)!, pool.take(1)!];
  pool.give(after);
  pool.give(before);
  packet.length = 60;
  packet.data.fill(1);
  Udp.encode(packet, { srcPort: 1, dstPort: 2 });
  if (version === 4) Ipv4.encode(packet, { src: 1, dst: 2, protocol: 17, dontFragment: false });
  else Ipv6.encode(packet, { src: ADDRESS, dst: ADDRESS, nextHeader: 17 });
  return packet;
}

/** Bytes of the neighbours, of which a packet of its own has none. */
function leaked(packets: Iterable<Uint8Array>): number {
  return [...packets].reduce((sum, bytes) => sum + bytes.filter((byte) => byte === SECRET).length, 0);
}

/** A stage that slips, and then does more with the packet in the same call. */
function slipping(
  slip: (packet: Packet) => void,
  then: (packet: Packet, context: StageContext) => void,
): Stage {
  const pass: Stage["outbound"] = (batch, context) => {
    for (const packet of batch) {
      slip(packet);
      then(packet, context);
    }
  };
  return { name: "slip", outbound: pass, inbound: pass };
}

for (const [what, slip] of Object.entries(SLIPS)) {
  for (const version of [4, 6] as const) {
    Deno.test(`IPv${version} with ${what} is not copied by any other stage, and dropped where it would leave`, () => {
      for (const direction of [Direction.Outbound, Direction.Inbound]) {
        const end = new ManualEnd();
        const written: Uint8Array[] = [];
        const capture = new Capture({ write: (bytes: Uint8Array) => void written.push(bytes.slice()) });
        const copies = [
          new Mirror(end),
          fragment(1280),
          capture,
          new Impairment({ outbound: { duplicate: 1 } }),
        ] as Stage[];
        const culprit = slipping(slip, () => {});
        const stages = direction === Direction.Outbound ? [culprit, ...copies] : [...copies, culprit];
        const test = new TestPipeline(...stages);
        const packet = surrounded(test, version);
        const { pipeline } = test;
        const flow = pipeline.ledger.flow(direction);
        flow.packetsIn++;
        (direction === Direction.Outbound ? pipeline.outbound[0]! : pipeline.fromFar).push(packet);
        test.settle();
        const out = new ManualEnd();
        pipeline.exhaleToFar(out);
        pipeline.exhaleToDevice(out);
        deepEqual([out.written.length, end.written.length], [0, 0]);
        deepEqual(Object.fromEntries(pipeline.ledger.counters.dropped.reasons), {
          "moved out of its slot": 1,
        });
        pipeline.close();
        equal(leaked(written), 0);
        ok(test.balanced);
      }
    });

    Deno.test(`IPv${version} with ${what} is not copied in the same call`, () => {
      const pool = new PacketPool({ small: 3, large: 1 });
      const packet = surrounded({ pool }, version);
      slip(packet);
      const context = { now: 0, direction: Direction.Outbound } as StageContext;
      const end = new ManualEnd();
      const mirror = new Mirror(end);
      const batch = new TestPipeline().pipeline.forFar;
      batch.push(packet);
      mirror.outbound(batch, context);
      equal(end.written.length, 0);
      deepEqual([...mirror.lost.keys()], ["moved out of its slot"]);
      const written: Uint8Array[] = [];
      const writer = new PcapngWriter({ write: (bytes: Uint8Array) => void written.push(bytes.slice()) });
      const tun = writer.addInterface("tun");
      writer.write(packet, tun, 0, Direction.Outbound);
      writer.flush();
      equal(leaked(written), 0);
      const free = pool.free;
      equal(copyPacket(packet, pool), undefined);
      equal(pool.free, free);
      deepEqual(copy(packet), []);
      equal(packet.data.length, 0);
      equal(new PacketRing(allocateRing()).push(packet, 0), false);
      // A header that is whole and true is read, whatever is said to be behind it.
      const ip = Ip.of(packet);
      ok(ip === undefined || ip.start >= packet.slotStart && ip.start + ip.totalLength <= packet.slotEnd);
    });
  }

  Deno.test(`A packet with ${what} is dropped after a stage has emitted it`, () => {
    for (const direction of [Direction.Outbound, Direction.Inbound]) {
      const test = new TestPipeline(slipping(slip, (packet, context) => context.emit(packet, direction)));
      const packet = surrounded(test, 4);
      test.pipeline.ledger.counters.outbound.packetsIn++;
      test.pipeline.outbound[0]!.push(packet);
      test.settle();
      const out = new ManualEnd();
      test.pipeline.exhaleToFar(out);
      test.pipeline.exhaleToDevice(out);
      equal(out.written.length, 0);
      deepEqual(Object.fromEntries(test.pipeline.ledger.counters.dropped.reasons), {
        "moved out of its slot": 1,
      });
      ok(test.balanced);
    }
  });
}
