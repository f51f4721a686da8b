/** Stages with `segmented`: super-packets are segmented before them, and partial checksums completed. */

import assert from "node:assert/strict";
import {
  Direction,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
} from "../../../lib/core/mod.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { Tcp } from "../../../lib/wire/tcp.ts";
import { Udp } from "../../../lib/wire/udp.ts";
import { openTunnel } from "../../../runtime/mod.ts";
import { TestPipeline } from "../../kit/pipeline.ts";
import { assertBalanced, assertNothingLeft, ManualEnd, QUIET } from "../../kit/tunnel.ts";
import { copy } from "../../../lib/split/copy.ts";

const { Outbound, Inbound } = Direction;
const KEY = 0x5a;

/** Encrypts every byte, as WireGuard does: its packets must be as on the wire. */
class Seal implements Stage {
  readonly name = "seal";
  readonly segmented = true;
  readonly met: number[] = [];

  outbound(batch: PacketBatch): void {
    for (const packet of batch) {
      assert.deepEqual([packet.segmentSize, packet.checksumStart], [0, 0]);
      this.met.push(packet.length);
      turn(packet);
    }
  }

  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

function turn({ bytes, offset, length }: Packet): void {
  for (let i = offset; i < offset + length; i++) bytes[i]! ^= KEY;
}

/** A TCP super-packet with a partial checksum, as from Linux. */
function makeSuper(packet: Packet, seq: number, payload: number, segmentSize: number): Packet {
  packet.length = payload;
  packet.data.fill(seq);
  Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq, ack: 1, flags: Tcp.Ack });
  Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 6 });
  packet.segmentSize = segmentSize;
  return packet;
}

function put(test: TestPipeline, direction: Direction, packet: Packet): void {
  const { pipeline } = test;
  const flow = pipeline.ledger.flow(direction);
  flow.packetsIn++;
  (direction === Outbound ? pipeline.outbound[0]! : pipeline.fromFar).push(packet);
}

/** Asserts that the counters balance; segments that are still to be made count, and have no slot. */
function assertBooks({ pipeline }: TestPipeline): void {
  const stats = pipeline.ledger.counters.snapshot(pipeline.queued);
  const { outbound, inbound, created, consumed, dropped, queued } = stats;
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  const went = outbound.packetsOut + inbound.packetsOut + consumed + lost + queued;
  assert.equal(outbound.packetsIn + inbound.packetsIn + created, went, JSON.stringify(stats));
}

/** Breathes until a stage has nothing left to segment, and takes the packets that come through. */
function drain(test: TestPipeline): { far: Uint8Array[]; device: Uint8Array[] } {
  const all = { far: [] as Uint8Array[], device: [] as Uint8Array[] };
  for (let more = true; more;) {
    test.settle();
    assertBooks(test);
    const { far, device } = test.receive();
    all.far.push(...far);
    all.device.push(...device);
    more = far.length + device.length > 0;
  }
  return all;
}

for (const direction of [Outbound, Inbound]) {
  const way = direction === Outbound ? "outbound" : "inbound";
  Deno.test(`A segmented stage meets the segments of a super-packet ${way}, in order, with finished checksums`, () => {
    const seal = new Seal();
    const opened: Stage = {
      name: "opened",
      outbound: (batch) => Array.from(batch).forEach(turn),
      inbound: (batch) => Array.from(batch).forEach(turn),
    };
    const test = new TestPipeline(...(direction === Outbound ? [seal, opened] : [opened, seal]));
    const sizes = [1000, 64, 17];
    for (let i = 0; i < sizes.length; i++) {
      put(test, direction, makeSuper(test.pool.take(SMALL)!, 1000 * i, 1200, sizes[i]!));
      put(test, direction, test.pool.from(Uint8Array.of(i))!);
    }
    const { far, device } = drain(test);
    const through = direction === Outbound ? far : device;
    const reference = new TestPipeline();
    const expected: Uint8Array[] = [];
    for (let i = 0; i < sizes.length; i++) {
      const packet = makeSuper(reference.pool.take(SMALL)!, 1000 * i, 1200, sizes[i]!);
      expected.push(...copy(packet), Uint8Array.of(i));
    }
    assert.deepEqual(through, expected);
    assert.equal(seal.met.length, expected.length);
    assert.equal(test.pool.taken, 0);
  });
}

const SMALL = 1300;

Deno.test("A segmented stage meets a partial checksum finished, and other stages meet it as it came", () => {
  const seen: number[] = [];
  const seal = new Seal();
  const test = new TestPipeline(
    { name: "before", outbound: (batch) => seen.push(batch.packets[0]!.checksumStart) },
    seal,
  );
  const packet = test.pool.take(100)!;
  packet.length = 50;
  Udp.encode(packet, { srcPort: 1, dstPort: 2 });
  Ipv4.encode(packet, { src: 1, dst: 2, protocol: 17 });
  const [whole] = copy(packet);
  const udp = Udp.of(packet)!;
  packet.view.setUint16(udp.start + 6, udp.ip.pseudoHeaderSum(17, 58));
  packet.checksumStart = 20;
  packet.checksumOffset = 6;
  put(test, Outbound, packet);
  const { far: [sealed] } = drain(test);
  assert.deepEqual(seen, [20]);
  assert.deepEqual(sealed!.map((byte) => byte ^ KEY), whole!);
});

Deno.test("A segmented stage with one direction gets no super-packets in it, and the other direction keeps them", () => {
  const lengths: number[] = [];
  const test = new TestPipeline({
    name: "seal",
    segmented: true,
    outbound: (batch) => void lengths.push(...Array.from(batch, ({ length }) => length)),
  });
  for (const direction of [Outbound, Inbound]) {
    put(test, direction, makeSuper(test.pool.take(SMALL)!, 7, 1200, 600));
  }
  test.settle();
  assert.deepEqual(lengths, [640, 640]);
  assert.equal(test.pipeline.forDevice.packets[0]!.segmentSize, 600);
});

Deno.test("A segmented stage gets one batch of segments a breath, and none while their way out is full", () => {
  const seal = new Seal();
  const test = new TestPipeline(seal);
  put(test, Outbound, makeSuper(test.pool.take(SMALL)!, 1, 1200, 10));
  const { pipeline } = test;
  pipeline.flow(Outbound, 0);
  assert.equal(pipeline.forFar.length, 64);
  assert.equal(pipeline.queued, 120);
  // Nothing more is segmented, nor read, and the breath says so.
  for (let i = 0; i < 3; i++) assert.equal(pipeline.flow(Outbound, 0), false);
  assert.deepEqual([pipeline.wantsOutbound, pipeline.pending, seal.met.length], [false, false, 64]);
  assertBooks(test);
  test.take();
  assert.deepEqual([pipeline.wantsOutbound, pipeline.pending], [false, true]);
  pipeline.flow(Outbound, 0);
  assert.equal(test.take().far.length, 56);
  assert.deepEqual([pipeline.wantsOutbound, pipeline.pending], [true, false]);
  assert.equal(test.pool.taken, 0);
});

Deno.test("Pipeline.close() counts a super-packet whose segments a stage has not all met", () => {
  const test = new TestPipeline(new Seal());
  put(test, Outbound, makeSuper(test.pool.take(SMALL)!, 1, 1200, 10));
  test.pipeline.flow(Outbound, 0);
  test.pipeline.close();
  assert.ok(test.balanced);
  assert.equal(test.pool.taken, 0);
  assert.deepEqual(Object.fromEntries(test.pipeline.ledger.counters.dropped.reasons), { closed: 64 + 1 });
});

Deno.test("A segmented stage drops a super-packet that cannot be segmented", () => {
  const seal = new Seal();
  const test = new TestPipeline(seal);
  const packet = test.pool.from(new Uint8Array(100))!;
  packet.segmentSize = 20;
  put(test, Outbound, packet);
  drain(test);
  assert.deepEqual(seal.met, []);
  assert.deepEqual(Object.fromEntries(test.pipeline.ledger.counters.dropped.reasons), {
    "super-packet malformed": 1,
  });
});

Deno.test("A tunnel with a segmented stage passes all segments between ends that take super-packets", async () => {
  const [near, far] = [new SuperEnd("near"), new SuperEnd("far")];
  const tunnel = await openTunnel({ device: near, far, stages: [new Seal()], ...QUIET });
  const running = tunnel.run();
  near.super(10, 1200, 5);
  far.super(10, 1200, 5);
  far.room = 100;
  await near.wrote(2400);
  assertBalanced(tunnel);
  while (far.written.length < 2400) {
    const before = far.written.length;
    far.makeRoom(100);
    await far.wrote(Math.min(2400, before + 1));
  }
  assertBalanced(tunnel);
  tunnel.close();
  await running;
  assert.deepEqual([near.written.length, far.written.length], [2400, 2400]);
  assertNothingLeft(tunnel);
});

/** An end that takes and gives super-packets. */
class SuperEnd extends ManualEnd {
  override readonly offload = true;
  #count = 0;
  #payload = 0;
  #segmentSize = 0;

  /** Has so many super-packets to read from now on. */
  super(count: number, payload: number, segmentSize: number): void {
    [this.#count, this.#payload, this.#segmentSize] = [count, payload, segmentSize];
    this.host.wake();
  }

  override read(batch: PacketBatch): number {
    let count = 0;
    for (; this.#count > 0 && !batch.full; this.#count--, count++) {
      const packet = this.host.pool.take(SMALL);
      if (packet === undefined) break;
      batch.push(makeSuper(packet, this.#count, this.#payload, this.#segmentSize));
    }
    return count + super.read(batch);
  }
}

Deno.test("StageContext.done() ends a packet without a drop, and the books balance", () => {
  const held: Packet[] = [];
  const test = new TestPipeline({
    name: "probe",
    outbound(batch, context: StageContext) {
      for (const packet of batch) {
        switch (packet.bytes[packet.offset]) {
          case 1:
            context.done(packet);
            assert.throws(
              () => context.done(packet),
              /^TypeError: Cannot consume a packet that stage "probe"/,
            );
            break;
          case 2:
            context.hold(packet);
            held.push(packet);
        }
      }
    },
    tick(context) {
      const own = context.take(1)!;
      context.done(own);
      for (const packet of held.splice(0)) context.done(packet);
      return undefined;
    },
  });
  test.put(Outbound, [1, 2, 3]);
  test.settle();
  assert.ok(test.balanced);
  assert.deepEqual(test.take().far, [3]);
  const { consumed, created, dropped } = test.pipeline.ledger.counters.snapshot(0);
  assert.deepEqual([consumed, created, dropped], [3, 1, {}]);
  assert.equal(test.pool.taken, 0);
});
