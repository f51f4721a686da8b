/** The exit to one end: segmentation, back-pressure, drops, and the balance of counters. */

import assert from "node:assert/strict";
import { Direction, type Packet, PacketBatch, PacketPool, type TunnelEnd } from "../../../lib/core/mod.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { Udp } from "../../../lib/wire/udp.ts";
import { Ledger } from "../../../runtime/engine/ledger.ts";
import { Outlet } from "../../../runtime/engine/outlet.ts";

const SEGMENT = 100;
const HEADERS = 28;

/** An end that takes a limited number of packets, and records their ports and lengths. */
class TakingEnd implements Pick<TunnelEnd, "offload" | "write"> {
  readonly taken: [port: number, length: number][] = [];
  room = Infinity;
  /** Packets that it still has, where it does not give them back at once. */
  kept: Packet[] | undefined;
  readonly offload: boolean;

  constructor(offload: boolean) {
    this.offload = offload;
  }

  write(batch: PacketBatch): number {
    const count = Math.min(this.room, batch.length);
    for (const packet of batch.packets.slice(0, count)) {
      this.taken.push([Udp.of(packet)!.dstPort, packet.length]);
      if (this.kept === undefined) packet.pool.give(packet);
      else this.kept.push(packet);
    }
    batch.shift(count);
    this.room -= count;
    return count;
  }

  giveBack(count: number): void {
    for (const packet of this.kept!.splice(0, count)) packet.pool.give(packet);
  }
}

/** An outlet to such an end, and the packets that wait for it. */
class TestOutlet {
  readonly end: TakingEnd;
  readonly ledger: Ledger;
  readonly outlet: Outlet;
  readonly batch = new PacketBatch();

  constructor({ offload = false, small = 256, large = 4 } = {}) {
    this.end = new TakingEnd(offload);
    this.ledger = new Ledger(new PacketPool({ small, large }));
    this.outlet = new Outlet(this.ledger, Direction.Outbound);
  }

  /** Has a packet with this port wait; with several segments, as a super-packet. */
  put(port: number, segments = 1, segmentSize = SEGMENT): Packet {
    const packet = this.ledger.pool.from(new Uint8Array(segments * segmentSize))!;
    Udp.encode(packet, { srcPort: 1, dstPort: port });
    Ipv4.encode(packet, { src: 1, dst: 2, protocol: 17 });
    if (segments > 1) packet.segmentSize = segmentSize;
    this.batch.push(packet);
    this.ledger.counters.outbound.packetsIn++;
    return packet;
  }

  exhale(): boolean {
    const moved = this.outlet.exhale(this.end as unknown as TunnelEnd, this.batch);
    this.assertBalanced();
    return moved;
  }

  /** The ports of the packets that the end has. */
  get ports(): number[] {
    return this.end.taken.map(([port]) => port);
  }

  assertBalanced(): void {
    const { counters: { outbound, created, dropped } } = this.ledger;
    const queued = this.outlet.queued + this.batch.length;
    assert.equal(outbound.packetsIn + created, outbound.packetsOut + dropped.total + queued);
    assert.equal(outbound.packetsOut, this.end.taken.length);
    assert.equal(outbound.bytesOut, this.end.taken.reduce((sum, [, length]) => sum + length, 0));
  }

  /** What was dropped; nothing is anywhere any more. */
  get dropped(): Record<string, number> {
    assert.deepEqual([this.outlet.queued, this.batch.length, this.ledger.pool.taken], [0, 0, 0]);
    return Object.fromEntries(this.ledger.counters.dropped.reasons);
  }
}

Deno.test("Outlet cuts super-packets for an end without offload, in their order among the others", () => {
  const test = new TestOutlet();
  test.put(1);
  test.put(2, 3);
  test.put(3);
  assert.equal(test.exhale(), true);
  assert.deepEqual(test.ports, [1, 2, 2, 2, 3]);
  assert.ok(test.end.taken.every(([, length]) => length === SEGMENT + HEADERS));
  assert.equal(test.ledger.counters.created, 2);
  assert.deepEqual(test.dropped, {});
});

Deno.test("Outlet goes on where the end stopped, and lets nothing overtake", () => {
  const test = new TestOutlet();
  test.put(1, 5);
  test.put(2);
  test.end.room = 2;
  assert.equal(test.exhale(), true);
  assert.deepEqual(test.ports, [1, 1]);
  assert.equal(test.exhale(), false);
  test.put(3, 2);
  test.end.room = Infinity;
  assert.equal(test.exhale(), true);
  assert.deepEqual(test.ports, [1, 1, 1, 1, 1, 2, 3, 3]);
  assert.deepEqual(test.dropped, {});
});

Deno.test("Outlet cuts more segments than a batch holds, at once for an end that takes them", () => {
  const test = new TestOutlet();
  test.put(1, 200);
  test.put(2, 200);
  assert.equal(test.exhale(), true);
  assert.deepEqual(test.ports, [...new Array(200).fill(1), ...new Array(200).fill(2)]);
  assert.deepEqual(test.dropped, {});
});

Deno.test("Outlet gives whole super-packets to an end with offload, but those that Linux refuses", () => {
  for (const [segments, size, whole] of [[127, 400, true], [129, 400, false], [2000, 1, false]] as const) {
    const test = new TestOutlet({ offload: true });
    test.put(1, segments, size);
    assert.equal(test.exhale(), true);
    assert.equal(test.end.taken.length, whole ? 1 : segments, `${segments} of ${size} bytes`);
    assert.deepEqual(test.dropped, {});
  }
});

Deno.test("Outlet waits once for a slot of the pool, and drops what is left when there is none", () => {
  const test = new TestOutlet({ small: 3 });
  test.end.kept = [];
  test.put(1, 5, 1000);
  assert.equal(test.exhale(), true);
  assert.deepEqual([test.ports.length, test.outlet.queued], [3, 2]);
  test.end.giveBack(1);
  assert.equal(test.exhale(), true);
  assert.deepEqual([test.ports.length, test.outlet.queued], [4, 1]);
  assert.equal(test.exhale(), false);
  test.end.giveBack(3);
  assert.deepEqual(test.dropped, { "pool empty": 1 });
});

Deno.test("Outlet drops packets moved out of their slots, and super-packets that cannot be segmented", () => {
  const test = new TestOutlet();
  test.put(1).offset = -1;
  test.put(2);
  assert.equal(test.exhale(), true);
  assert.equal(test.exhale(), true);
  assert.deepEqual(test.ports, [2]);
  test.put(3, 2).segmentSize = 0.5;
  test.exhale();
  assert.deepEqual(test.dropped, {
    "moved out of its slot": 1,
    "super-packet with an invalid segment size": 1,
  });
});

Deno.test("Outlet.clear() counts each segment that was made or was still to be made", () => {
  const test = new TestOutlet();
  test.put(1, 200);
  test.end.room = 70;
  test.exhale();
  test.end.room = 0;
  test.exhale();
  test.outlet.clear("closed");
  test.assertBalanced();
  const { closed } = test.dropped;
  assert.ok(closed! > 64, `${closed}`);
  assert.equal(test.ports.length, 70);
});
