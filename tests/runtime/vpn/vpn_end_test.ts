/** VPN ends: what passes, what is counted where, and protocols that misbehave. No permissions. */

import assert from "node:assert/strict";
import { MemoryDevice } from "../../../driver/memory.ts";
import {
  Direction,
  ManualClock,
  opposite,
  type Packet,
  PacketBatch,
  PacketPool,
  SMALL_ROOM,
  type StageContext,
} from "../../../lib/core/mod.ts";
import { Random } from "../../../lib/core/random.ts";
import { Segmenter } from "../../../lib/split/segmenter.ts";
import type { VpnProtocol } from "../../../lib/vpn/protocol.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { Tcp } from "../../../lib/wire/tcp.ts";
import { Loop } from "../../../runtime/engine/loop.ts";
import { openTunnel, type Tunnel, udp, vpn, VpnEnd } from "../../../runtime/mod.ts";
import { empty, pattern } from "../../conformance/end.ts";
import { FaultyDevice } from "../../kit/faulty_device.ts";
import { TestHost, turn, until } from "../../kit/host.ts";
import { encodeIp, makePartial, wrongChecksum } from "../../kit/packets.ts";
import { Seal, SEAL_OVERHEAD } from "../../kit/seal.ts";
import { assertBalanced, ManualEnd, QUIET } from "../../kit/tunnel.ts";

/** An end below a VPN end. */
class Wire extends ManualEnd {
  readonly payload = "any";
}

/** A protocol of functions. */
function protocolOf(parts: Partial<VpnProtocol>): VpnProtocol {
  return { name: "toy", overhead: 0, ...parts };
}

interface Rig extends AsyncDisposable {
  readonly tunnel: Tunnel;
  readonly device: ManualEnd;
  readonly wire: Wire;
  readonly end: VpnEnd;
  readonly loop: Loop;
  readonly clock: ManualClock;
  readonly running: Promise<void>;
  /** The tunnel's counters, after both books have been checked. */
  stats(): Tunnel["stats"];
}

/** A running tunnel from a device to a protocol over a wire, on a loop with a clock of its own. */
async function openRig(parts: Partial<VpnProtocol>, wire = new Wire("wire")): Promise<Rig> {
  const clock = new ManualClock();
  const loop = new Loop(clock);
  const device = new ManualEnd("device");
  const end = new VpnEnd(protocolOf(parts), wire);
  const tunnel = await openTunnel({ device, far: end, loop, ...QUIET });
  const running = tunnel.run();
  running.catch(() => {});
  const stats = () => {
    assertBalanced(tunnel);
    assertAdds(end.stats);
    const { stats } = tunnel;
    for (const flow of [stats.outbound, stats.inbound]) assert(flow.packetsOut >= 0 && flow.bytesOut >= 0);
    return stats;
  };
  return {
    tunnel,
    device,
    wire,
    end,
    loop,
    clock,
    running,
    stats,
    async [Symbol.asyncDispose]() {
      tunnel.close();
      await tunnel.closed.catch(() => {});
      assert.equal(stats().queued, 0);
      assert.equal(loop.pool.taken, 0, "every packet is back");
      assert.equal(wire.closes, 1);
    },
  };
}

function assertAdds({ outbound, inbound, created, consumed, dropped, queued }: Tunnel["stats"]): void {
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  assert.equal(
    outbound.packetsIn + inbound.packetsIn + created,
    outbound.packetsOut + inbound.packetsOut + consumed + lost + queued,
  );
}

function invert(batch: PacketBatch): void {
  for (const { bytes, offset, length } of batch) {
    for (let i = offset; i < offset + length; i++) bytes[i]! ^= 0xff;
  }
}

/** Settled when a number of breaths have passed. */
async function breaths(loop: Loop, count = 3): Promise<void> {
  for (let i = 0; i < count; i++) {
    loop.wake();
    await turn();
  }
}

Deno.test("VpnEnd passes packets through the protocol in both directions", async () => {
  await using rig = await openRig({ outbound: invert, inbound: invert });
  rig.device.come(1, 2);
  rig.wire.come(0xfc);
  await rig.wire.wrote(2);
  await rig.device.wrote(1);
  assert.deepEqual(rig.wire.writtenBytes, [0xfe, 0xfd]);
  assert.deepEqual(rig.device.writtenBytes, [3]);
  const { outbound, inbound, created } = rig.stats();
  assert.deepEqual([outbound.packetsOut, outbound.bytesOut, inbound.packetsIn, created], [2, 2, 1, 0]);
});

Deno.test("VpnEnd counts drops of the protocol and of the end below as the tunnel's, with the lengths that it counted", async () => {
  const wire = new Wire("wire");
  wire.write = (batch) => {
    const { length } = batch;
    for (const packet of batch) wire.host.finish(packet, "no route");
    batch.clear();
    return length;
  };
  await using rig = await openRig({
    outbound(batch, context) {
      for (const packet of batch) {
        packet.prepend(8);
        if (packet.bytes[packet.offset + 8] === 1) context.drop(packet, "no peer");
      }
    },
    inbound(batch, context) {
      for (const packet of batch) context.drop(packet, "not authentic");
    },
  }, wire);
  rig.device.come(1, 2, 2);
  rig.wire.come(7);
  await until(() => Object.keys(rig.tunnel.stats.dropped).length === 3, "everything was dropped");
  const { outbound, inbound, dropped } = rig.stats();
  assert.deepEqual(dropped, { "no peer": 1, "no route": 2, "not authentic": 1 });
  assert.deepEqual([outbound.packetsIn, outbound.packetsOut, outbound.bytesOut], [3, 0, 0]);
  assert.deepEqual([inbound.packetsIn, inbound.bytesIn, inbound.packetsOut], [1, 1, 0]);
  assert.deepEqual(rig.end.stats.stages[0]!.dropped, { "no peer": 1, "not authentic": 1 });
});

Deno.test("VpnEnd passes on what the end below refuses on arrival", async () => {
  await using rig = await openRig({});
  rig.wire.host.refuse(40, "empty");
  assert.deepEqual(rig.stats().dropped, { empty: 1 });
  assert.deepEqual(rig.end.stats.dropped, { empty: 1 });
});

Deno.test("VpnEnd keeps a protocol's own packets out of the tunnel's counters", async () => {
  const wire = new Wire("wire");
  await using rig = await openRig({
    // A handshake: a new datagram as the reply to 1, the datagram itself as the reply to 2, and an end to 3.
    inbound(batch, context) {
      for (const packet of batch) {
        const first = packet.bytes[packet.offset];
        if (first === 2) context.emit(packet, opposite(context.direction));
        if (first === 1) {
          const reply = context.take(1)!;
          reply.bytes[reply.offset] = 9;
          context.emit(reply, Direction.Outbound);
        }
        if (first !== 2) context.done(packet);
      }
    },
  }, wire);
  wire.come(1, 2, 3);
  await wire.wrote(2);
  assert.deepEqual(wire.writtenBytes, [9, 2]);
  const { outbound, inbound, dropped } = rig.stats();
  assert.deepEqual([outbound.packetsOut, inbound.packetsIn, dropped], [0, 0, {}]);
  const own = rig.end.stats;
  assert.deepEqual([own.created, own.consumed, own.inbound.packetsIn, own.outbound.packetsOut], [1, 2, 3, 2]);
  // The slots of these packets of the tunnel are used again.
  rig.device.come(5, 5, 5);
  await wire.wrote(5);
  wire.write = (batch) => {
    const { length } = batch;
    for (const packet of batch) wire.host.finish(packet, "no route");
    batch.clear();
    return length;
  };
  wire.come(1, 2);
  await until(() => rig.end.stats.dropped["no route"] === 2, "both replies were dropped");
  assert.deepEqual(rig.stats().dropped, {});
});

Deno.test("VpnEnd runs a protocol's timers in the time of the loop, also while the device is full", async () => {
  const times: number[] = [];
  await using rig = await openRig({
    tick(context) {
      times.push(context.now);
      const keepalive = context.take(1)!;
      keepalive.bytes[keepalive.offset] = 0;
      context.emit(keepalive, Direction.Outbound);
      return 25_000;
    },
  });
  await rig.wire.wrote(1);
  rig.device.makeRoom(0);
  rig.wire.come(1);
  for (let i = 1; i <= 3; i++) {
    rig.clock.advance(24_999);
    await breaths(rig.loop);
    assert.equal(rig.wire.written.length, i);
    rig.clock.advance(1);
    rig.loop.wake();
    await rig.wire.wrote(i + 1);
  }
  assert.deepEqual(times, [0, 25_000, 50_000, 75_000]);
  assert.equal(rig.stats().outbound.packetsOut, 0);
  assert.equal(rig.end.stats.created, 4);
});

Deno.test("VpnEnd runs the protocol's tick after context.wake()", async () => {
  let context: StageContext | undefined;
  let ticks = 0;
  await using rig = await openRig({
    tick(given) {
      context = given;
      ticks++;
      return undefined;
    },
  });
  await until(() => ticks === 1, "it ticked");
  context!.wake();
  await until(() => ticks === 2, "it ticked again");
  assert.equal(rig.stats().queued, 0);
});

for (const method of ["outbound", "inbound", "tick"] as const) {
  Deno.test(`VpnEnd ends the tunnel with the protocol's name when ${method} throws`, async () => {
    await using rig = await openRig({
      [method]() {
        throw new Error("no such luck");
      },
    });
    if (method === "outbound") rig.device.come(1, 2);
    if (method === "inbound") rig.wire.come(1, 2);
    await assert.rejects(
      rig.running,
      /^Error: Cannot go on with "toy over wire": stage "toy" threw: no such luck$/,
    );
    rig.stats();
  });
}

Deno.test("VpnEnd ends the tunnel when a protocol emits a packet twice or changes its batch", async () => {
  const faults: [RegExp, VpnProtocol["outbound"]][] = [
    [/stage "toy" threw: Cannot emit a packet that stage "toy" does not own/, ([packet], context) => {
      context.emit(packet!, Direction.Outbound);
      context.emit(packet!, Direction.Outbound);
    }],
    [/stage "toy" threw: Cannot change the batch of stage "toy"/, (batch) => batch.clear()],
    [
      /stage "toy" threw: Cannot hand over a packet: worker/,
      ([packet], context) => context.handOver(packet!, 1),
    ],
  ];
  for (const [message, outbound] of faults) {
    await using rig = await openRig({ outbound });
    rig.device.come(1);
    await assert.rejects(rig.running, message);
  }
});

Deno.test("VpnEnd ends the tunnel when the end below fails or lies about what it took", async () => {
  await using rig = await openRig({});
  rig.wire.fail(new Error("Cannot use wire: it is gone"));
  await assert.rejects(rig.running, /^Error: Cannot use wire: it is gone$/);
  const wire = new Wire("wire");
  wire.write = () => 7;
  await using lying = await openRig({}, wire);
  lying.device.come(1);
  await assert.rejects(lying.running, /^TypeError: Cannot write to "wire": its write returned 7/);
});

Deno.test("VpnEnd counts packets that a protocol holds as queued, and drops them when it closes", async () => {
  const packets: Packet[] = [];
  await using rig = await openRig({
    outbound(batch, context) {
      for (const packet of batch) {
        context.hold(packet);
        packets.push(packet);
      }
    },
    inbound(batch, context) {
      for (const packet of batch) context.hold(packet);
      context.take(1);
    },
  });
  rig.device.come(1, 2, 3);
  rig.wire.come(4);
  await until(() => rig.end.stats.queued === 5, "everything was held");
  assert.equal(rig.stats().queued, 3);
  assert.equal(rig.stats().outbound.packetsOut, 0);
  rig.tunnel.close();
  await rig.tunnel.closed;
  assert.deepEqual(rig.stats().dropped, { closed: 4 });
});

Deno.test("VpnEnd takes nothing while the end below is full, and goes on when it has room", async () => {
  const wire = new Wire("wire");
  wire.room = 0;
  await using rig = await openRig({ outbound: invert }, wire);
  rig.device.come(...Array.from({ length: 500 }, (_, i) => i % 251));
  await until(() => rig.tunnel.stats.queued >= 64, "packets waited");
  await breaths(rig.loop);
  const { queued, outbound } = rig.stats();
  assert(queued <= 128, `${queued} packets wait: one batch here, and one in the tunnel`);
  assert.equal(outbound.packetsOut, 0);
  for (let room = 1; rig.stats().outbound.packetsOut < 500; room = room * 3 % 97) {
    wire.makeRoom(room);
    await breaths(rig.loop, 1);
  }
  assert.deepEqual(wire.writtenBytes, Array.from({ length: 500 }, (_, i) => i % 251 ^ 0xff));
});

Deno.test("VpnEnd sends what waits while the device is full, too", async () => {
  const wire = new Wire("wire");
  await using rig = await openRig({}, wire);
  wire.room = 0;
  rig.device.room = 0;
  rig.device.come(1);
  wire.come(2);
  await until(() => rig.tunnel.stats.queued === 2, "both waited");
  await breaths(rig.loop);
  wire.makeRoom(1);
  await wire.wrote(1);
  assert.equal(rig.stats().queued, 1);
});

Deno.test("VpnEnd bounds a protocol that floods by the pool, and the tunnel goes on afterwards", async () => {
  let floods = 3;
  const wire = new Wire("wire");
  wire.room = 0;
  await using rig = await openRig({
    tick(context) {
      for (let packet; (packet = context.take(100)) !== undefined;) {
        packet.bytes[packet.offset] = 0;
        context.emit(packet, Direction.Outbound);
      }
      return --floods > 0 ? 0 : undefined;
    },
  }, wire);
  rig.device.come(1);
  await until(() => floods === 0, "the floods are over");
  assert.equal(rig.stats().outbound.packetsOut, 0);
  wire.makeRoom(Infinity);
  await until(() => wire.writtenBytes.includes(1), "the packet came through");
  assert.equal(rig.stats().outbound.packetsOut, 1);
});

/** A super-packet of TCP with 1000 bytes in each of its segments, and a partial checksum. */
function superPacket(pool: PacketPool, segments: number): Packet {
  const packet = pool.take(segments * 1000)!;
  packet.data.fill(7);
  Tcp.encode(packet, { srcPort: 1, dstPort: 2, seq: 0, flags: 0x10 });
  encodeIp(packet, 4, 6);
  packet.segmentSize = 1000;
  makePartial(packet, packet.offset + 20, 16);
  return packet;
}

/** Segments super-packets itself, as a protocol does that encrypts while it segments. */
class OwnSegments implements VpnProtocol {
  readonly name = "own segments";
  readonly overhead = 0;
  readonly #segmenter = new Segmenter();

  outbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) {
      if (packet.segmentSize === 0) continue;
      this.#segmenter.start(packet);
      while (this.#segmenter.remaining > 0) {
        const segment = this.#segmenter.next(context)!;
        context.emit(segment, Direction.Outbound);
      }
      context.done(packet);
    }
  }
}

for (
  const [name, protocol, created] of [
    ["requests segments", protocolOf({ segmented: true }), 39],
    ["takes super-packets and segments them itself", new OwnSegments(), 0],
  ] as const
) {
  Deno.test(`VpnEnd with a protocol that ${name} sends one datagram for each segment`, async () => {
    const loop = new Loop(new ManualClock());
    const [device, system] = MemoryDevice.pair();
    system.attach(new TestHost(loop.pool));
    const wire = new Wire("wire");
    const end = new VpnEnd(protocol, wire);
    assert.equal(end.offload, protocol instanceof OwnSegments);
    await using tunnel = await openTunnel({ device, far: end, loop, ...QUIET });
    const running = tunnel.run();
    const batch = new PacketBatch();
    batch.push(superPacket(loop.pool, 40));
    system.write(batch);
    await wire.wrote(40);
    for (const datagram of wire.written) {
      assert.equal(datagram.length, 1040);
      assert.equal(wrongChecksum(datagram), "");
    }
    assertBalanced(tunnel);
    assertAdds(end.stats);
    const { stats } = tunnel;
    assert.deepEqual([stats.created, stats.queued, stats.outbound.packetsOut], [created, 0, created + 1]);
    tunnel.close();
    await running;
    assert.equal(loop.pool.taken, 0);
  });
}

Deno.test("VpnEnd segments datagrams that the end below received as one super-packet, for a protocol that requests it", () => {
  const pool = new PacketPool();
  const host = new TestHost(pool);
  const [lower, wire] = MemoryDevice.pair({ payload: "any" });
  let segments = 0;
  using end = new VpnEnd(
    protocolOf({
      segmented: true,
      inbound(batch, context) {
        segments += batch.length;
        for (const packet of batch) context.drop(packet, "not authentic");
      },
    }),
    lower,
  );
  wire.attach(new TestHost(pool));
  end.attach(host);
  const batch = new PacketBatch();
  batch.push(superPacket(pool, 20));
  wire.write(batch);
  assert.equal(end.read(new PacketBatch()), 0);
  assert.equal(segments, 20);
  assertAdds(end.stats);
  assert.equal(pool.taken, 0);
});

Deno.test("VpnEnd runs over a VPN end, and each keeps its own books", async () => {
  const wire = new Wire("wire");
  const inner = new VpnEnd(new Seal(7, false), wire);
  Object.defineProperty(inner, "payload", { value: "any" });
  const end = new VpnEnd(new Seal(9, false), inner);
  assert.equal(end.mtu, 1500 - 2 * SEAL_OVERHEAD);
  const device = new ManualEnd("device");
  await using tunnel = await openTunnel({ device, far: end, ...QUIET });
  const running = tunnel.run();
  device.come(1, 2);
  await wire.wrote(2);
  wire.come(...wire.written);
  await device.wrote(2);
  assert.deepEqual(device.writtenBytes, [1, 2]);
  wire.write = (batch) => {
    const { length } = batch;
    for (const packet of batch) wire.host.finish(packet, "no route");
    batch.clear();
    return length;
  };
  device.come(3);
  await until(() => tunnel.stats.dropped["no route"] === 1, "it was dropped");
  assert.deepEqual([tunnel.stats.outbound.packetsOut, tunnel.stats.outbound.bytesOut], [2, 2]);
  for (const books of [tunnel.stats, end.stats, inner.stats]) assertAdds(books);
  tunnel.close();
  await running;
});

Deno.test("VpnEnd reports the MTU of the end below less the overhead, so that longer packets are answered", async () => {
  const loop = new Loop(new ManualClock());
  const pool = loop.pool;
  const [device, system] = MemoryDevice.pair();
  system.attach(new TestHost(pool));
  const far = new VpnEnd(protocolOf({ overhead: 128 }), new Wire("wire"));
  await using tunnel = await openTunnel({ device, far, loop, ...QUIET });
  const running = tunnel.run();
  const packet = pool.take(1400)!;
  packet.data.fill(7);
  Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a090002, protocol: 253 });
  const batch = new PacketBatch();
  batch.push(packet);
  system.write(batch);
  const got = new PacketBatch();
  await until(() => system.read(got) === 1, "an answer came");
  const answer = got.packets[0]!;
  assert.deepEqual([answer.bytes[answer.offset + 20], answer.bytes[answer.offset + 21]], [3, 4]);
  assert.equal(answer.view.getUint16(answer.offset + 26), 1372);
  pool.give(answer);
  tunnel.close();
  await running;
});

Deno.test("VpnEnd gives each packet room for the overhead before and after it", () => {
  const pool = new PacketPool();
  const [lower, wire] = MemoryDevice.pair({ mtu: 9000, payload: "any" });
  let packets = 0;
  const outbound = (batch: PacketBatch) => {
    for (const packet of batch) {
      assert(packet.headroom >= 128 && packet.tailroom >= 128, String(packet));
      packets++;
    }
  };
  using end = new VpnEnd(protocolOf({ overhead: 128, outbound }), lower);
  const [host, other] = [new TestHost(pool), new TestHost(pool)];
  end.attach(host);
  wire.attach(other);
  const written: Uint8Array[] = [];
  const batch = new PacketBatch();
  for (const length of [1, 1500, SMALL_ROOM - 127, SMALL_ROOM, SMALL_ROOM + 1, 8000]) {
    const bytes = pattern(length);
    written.push(bytes);
    batch.push(pool.from(bytes)!);
  }
  assert.equal(end.write(batch), 6);
  assert.equal(packets, 6);
  const got = new PacketBatch();
  wire.read(got);
  assert.deepEqual(empty(got), written);
});

Deno.test("VpnEnd refuses an end that carries only IP packets, and a protocol that lacks a part", () => {
  const [ip] = MemoryDevice.pair();
  assert.throws(
    () => new VpnEnd(protocolOf({}), ip),
    /^TypeError: Cannot run VPN protocol "toy" over "memory": its payload must be "any", got "ip"/,
  );
  const wire = new Wire("wire");
  assert.throws(() => new VpnEnd(null as never, wire), /^TypeError: Cannot use a stage/);
  assert.throws(
    () => new VpnEnd({ name: "toy" } as never, wire),
    /^TypeError: Cannot use VPN protocol "toy": overhead must be an integer/,
  );
  assert.throws(() => new VpnEnd(protocolOf({ overhead: -1 }), wire), RangeError);
  assert.throws(() => new VpnEnd(protocolOf({}), {} as never), /^TypeError: Cannot use an end: name/);
  const end = new VpnEnd(protocolOf({}), wire);
  assert.throws(() => end.stats, /^TypeError: Cannot count: "toy over wire" has no tunnel yet$/);
  end.close();
  assert.equal(wire.closes, 1);
});

Deno.test("VpnEnd closes the end below also when the protocol's close throws", async () => {
  const rig = await openRig({
    close() {
      throw new Error("stuck");
    },
  });
  rig.tunnel.close();
  await assert.rejects(rig.running, /Cannot close every stage/);
  assert.equal(rig.wire.closes, 1);
});

Deno.test("vpn() opens the end below for any bytes, and closes it when it cannot be used", async () => {
  let payload: string | undefined;
  const wire = new Wire("wire");
  const far = await vpn(protocolOf({}), {
    over(context) {
      ({ payload } = context!);
      return wire;
    },
  })();
  assert.equal(payload, "any");
  assert.equal(far.name, "toy over wire");
  const [device] = MemoryDevice.pair();
  await assert.rejects(
    Promise.resolve(vpn(protocolOf({}), { over: () => device })()),
    /its payload must be "any", got "ip"/,
  );
  assert.equal(device.write(new PacketBatch()), 0);
  await assert.rejects(
    Promise.resolve(vpn(protocolOf({}), { over: () => 7 as never })()),
    /^TypeError: Cannot open a tunnel: over must be a URL, an end or an opener of one, got 7$/,
  );
  assert.throws(
    () => vpn(protocolOf({}), {} as never),
    /^TypeError: Cannot open a VPN end: over is missing$/,
  );
  assert.throws(() => vpn(protocolOf({}), { over: "xyz://" }), SyntaxError);
  assert.throws(() => vpn({ name: "toy" } as never, { over: udp({ listen: 0 }) }), /overhead/);
});

/** A protocol that does with each packet whatever a stage may do, as a seed decides. */
class Erratic implements VpnProtocol {
  readonly name = "erratic";
  readonly overhead = 40;
  readonly segmented: boolean;
  readonly #random: Random;
  readonly #held: Packet[] = [];

  constructor(random: Random) {
    this.#random = random;
    this.segmented = random.below(2) === 0;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) this.#decide(packet, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) this.#decide(packet, context);
  }

  tick(context: StageContext): number {
    for (const packet of this.#held.splice(0, this.#random.below(20))) this.#end(packet, context);
    return this.#random.below(3);
  }

  #decide(packet: Packet, context: StageContext): void {
    const random = this.#random;
    switch (random.below(10)) {
      case 0:
        context.hold(packet);
        this.#held.push(packet);
        break;
      case 1: {
        const made = context.take(1 + random.below(1400));
        if (made !== undefined) this.#end(made, context);
        break;
      }
      case 2:
        this.#end(packet, context);
        break;
      case 3:
        if (packet.headroom >= 40) packet.prepend(random.below(41));
        break;
      case 4:
        if (packet.length > 8) packet.strip(random.below(8));
        break;
      case 5:
        packet.offset += 70_000;
    }
  }

  #end(packet: Packet, context: StageContext): void {
    switch (this.#random.below(4)) {
      case 0:
        return context.drop(packet, "a whim");
      case 1:
        return context.done(packet);
      default:
        context.emit(packet, this.#random.below(2) as Direction);
    }
  }
}

/** An end that is full, drops, delays and refuses, as a seed decides. */
class Unsteady extends FaultyDevice {
  readonly payload = "any";
}

Deno.test("VpnEnd keeps all books at all times, whatever the protocol and the ends do", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed);
    let time = 0;
    const loop = new Loop({ now: () => time += 0.25 });
    const device = new FaultyDevice("device", random, 600);
    const wire = new Unsteady("wire", random, 600);
    const end = new VpnEnd(new Erratic(random), wire);
    const tunnel = await openTunnel({
      device,
      far: end,
      loop,
      stages: [() => {
        assertBalanced(tunnel);
      }],
      ...QUIET,
    });
    const running = tunnel.run();
    for (let i = 0; i < 40; i++) {
      await breaths(loop, 1);
      assertBalanced(tunnel);
      assertAdds(end.stats);
      const { outbound, inbound } = tunnel.stats;
      for (const flow of [outbound, inbound]) {
        assert(flow.packetsOut >= 0 && flow.bytesOut >= 0, `seed ${seed}`);
        assert(flow.packetsOut <= flow.packetsIn, `seed ${seed}`);
      }
    }
    tunnel.close();
    await running;
    assertBalanced(tunnel);
    assertAdds(end.stats);
    assert.deepEqual([tunnel.stats.queued, end.stats.queued, loop.pool.taken], [0, 0, 0], `seed ${seed}`);
    assert.equal(
      wire.counts.given >= 300 && device.counts.given >= 100,
      true,
      `seed ${seed} has moved packets`,
    );
  }
});
