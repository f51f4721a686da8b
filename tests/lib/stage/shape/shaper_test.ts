/** Shaper with a fake clock: rate, order, fairness. */

import { Direction, type Stage } from "@warren/tunnel/core";
import { Fifo, FqCodel, Priority, type Scheduler, Shaper, TokenBucket } from "@warren/tunnel/shape";
import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";

const { Outbound, Inbound } = Direction;

function udp(port: number, payload: number): Uint8Array {
  return encodePacket(`udp 10.9.0.1:${port} > 192.0.2.1:53 payload ${payload}`);
}

function portOf(bytes: Uint8Array): number {
  return bytes[20]! * 256 + bytes[21]!;
}

function total(packets: readonly Uint8Array[]): number {
  return packets.reduce((sum, { length }) => sum + length, 0);
}

function within(value: number, wanted: number, part: number, what: string): void {
  ok(Math.abs(value - wanted) <= wanted * part, `${what} is ${value}, not ${wanted}`);
}

for (const rateBitsPerSecond of [64e3, 1e6, 10e6, 123_456_789]) {
  Deno.test(`Shaper sends ${rateBitsPerSecond} bits per second within 1 %, whatever the packet lengths and the delay of ticks`, () => {
    const random = new Random(1);
    const test = new TestPipeline(
      new Shaper({ outbound: { rateBitsPerSecond, burst: Math.max(3028, rateBitsPerSecond / 8 / 100) } }),
    );
    const lengths = [udp(1, 0), udp(2, 200), udp(3, 1472)];
    const packets = 20_000;
    let bytes = 0;
    let received = 0;
    // The time in which the burst is free is not measured.
    let [from, before] = [0, 0];
    let last = 0;
    test.now = 1000.25;
    while (received < packets) {
      while (test.pipeline.queued < 200) test.send(Outbound, lengths[random.below(3)]!);
      test.settle();
      const { far } = test.receive();
      received += far.length;
      bytes += total(far);
      if (from === 0 && received > 1000) [from, before] = [test.now, bytes];
      if (far.length > 0) last = test.now;
      // The next tick comes up to a millisecond late, sometimes several.
      test.now = Math.min(test.pipeline.due, test.now + 1) + random.below(1000) / 1000 +
        (random.below(50) === 0 ? 3 : 0);
    }
    const rate = (bytes - before) * 8 / (last - from) * 1000;
    ok(test.balanced);
    within(rate, rateBitsPerSecond, 0.01, "the rate");
  });
}

Deno.test("Shaper never sends more in any time than the burst, the rate and one packet", () => {
  const random = new Random(2);
  const [rateBitsPerSecond, burst] = [8e6, 5000];
  const test = new TestPipeline(new Shaper({ outbound: { rateBitsPerSecond, burst, queue: new Fifo() } }));
  const sums: { time: number; sum: number }[] = [{ time: 0, sum: 0 }];
  let sum = 0;
  for (test.now = 0; test.now < 500; test.now += 1 + random.below(3)) {
    for (let i = random.below(8); i > 0 && test.pipeline.queued < 100; i--) {
      test.send(Outbound, udp(1, random.below(1472)));
    }
    test.settle();
    sum += total(test.receive().far);
    for (const earlier of sums) {
      ok(sum - earlier.sum <= burst + (test.now - earlier.time) * 1000 + 1500, `at ${test.now}`);
    }
    sums.push({ time: test.now, sum });
  }
  within(sum, 500 * 1000 + burst, 0.05, "the sum");
});

/** Two flows through 10 Mbit/s: one keeps 150 packets waiting, the other one sends every 20 ms; its longest wait. */
function longestWait(queue: Scheduler): number {
  const test = new TestPipeline(new Shaper({ outbound: { rateBitsPerSecond: 10e6, burst: 3028, queue } }));
  let longest = 0;
  for (test.now = 1; test.now <= 3000; test.now++) {
    if (test.now % 20 === 0) {
      const bytes = udp(2, 100);
      new DataView(bytes.buffer).setUint32(28, test.now);
      test.send(Outbound, bytes);
    }
    while (test.pipeline.queued < 150) test.send(Outbound, udp(1, 1472));
    test.settle();
    for (const bytes of test.receive().far) {
      if (portOf(bytes) !== 2 || test.now < 1000) continue;
      const sentAt = new DataView(bytes.buffer, bytes.byteOffset).getUint32(28);
      longest = Math.max(longest, test.now - sentAt);
    }
  }
  ok(test.balanced);
  return longest;
}

Deno.test("Shaper with FqCodel lets a slow flow wait for two packets of a bulk flow at most, and Fifo does not", () => {
  // 1500 bytes are 1.2 ms.
  const fair = longestWait(new FqCodel({ hashKey: [1, 2] }));
  ok(fair <= 3, `it waits for ${fair} ms`);
  const unfair = longestWait(new Fifo());
  ok(unfair > 150, `it waits for ${unfair} ms`);
});

Deno.test("Shaper with FqCodel gives greedy flows equal shares", () => {
  const queue = new FqCodel({ hashKey: [1, 2], target: 1000 });
  const test = new TestPipeline(new Shaper({ outbound: { rateBitsPerSecond: 10e6, queue } }));
  const bytes = new Map([[1, 0], [2, 0], [3, 0], [4, 0]]);
  const lengths = [0, 1472, 1472, 700, 100];
  const random = new Random(3);
  const waiting = [0, 0, 0, 0, 0];
  for (test.now = 1; test.now <= 2000; test.now++) {
    for (let i = 0; i < 160; i++) {
      const port = 1 + random.below(4);
      if (waiting[port]! >= 40) continue;
      test.send(Outbound, udp(port, lengths[port]!));
      waiting[port]!++;
      test.settle();
    }
    test.settle();
    for (const packet of test.receive().far) {
      const port = portOf(packet);
      bytes.set(port, bytes.get(port)! + packet.length);
      waiting[port]!--;
    }
  }
  const mean = 10e6 / 8 * 2 / 4;
  for (const [port, sum] of bytes) within(sum, mean, 0.02, `the part of flow ${port}`);
});

Deno.test("Shaper keeps the order of each flow, with every queue", () => {
  const classify = () => 1;
  const queues = [
    () => new Fifo(),
    () => new FqCodel(),
    () => new FqCodel({ flows: 1 }),
    () => new Priority({ bands: [new Fifo(), new FqCodel()], classify }),
  ];
  for (const [i, queue] of queues.entries()) {
    const random = new Random(4);
    const test = new TestPipeline(new Shaper({ outbound: { rateBitsPerSecond: 5e6, queue: queue() } }));
    const next = [0, 0, 0, 0];
    const last = [-1, -1, -1, -1];
    let count = 0;
    for (test.now = 1; test.now < 1000; test.now += random.below(3)) {
      for (let many = random.below(6); many > 0 && test.pipeline.queued < 200; many--) {
        const flow = random.below(4);
        const bytes = udp(flow, random.below(1000) + 4);
        new DataView(bytes.buffer).setUint32(28, next[flow]!++);
        test.send(Outbound, bytes);
      }
      test.settle();
      for (const bytes of test.receive().far) {
        const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(28);
        ok(number > last[portOf(bytes)]!, `queue ${i}`);
        last[portOf(bytes)] = number;
        count++;
      }
    }
    ok(count > 500);
    ok(test.balanced);
  }
});

/** A super-packet of so many segments of 100 bytes of payload. */
function sendSuper(test: TestPipeline, segments: number): void {
  test.send(Outbound, udp(1, 100 * segments));
  const batch = test.pipeline.outbound[0]!;
  batch.packets[batch.length - 1]!.segmentSize = 100;
}

Deno.test("Shaper counts a super-packet as its segments, and segments one that is longer than the burst, in order", () => {
  const whole = new Shaper({ outbound: { rateBitsPerSecond: 8000, burst: 1280 } });
  const test = new TestPipeline(whole);
  sendSuper(test, 10);
  test.settle();
  deepEqual(whole.stats(Outbound), { packets: 1, bytes: 1280, delayed: 0 });
  equal(test.receive().far.length, 10);

  const cutting = new Shaper({ outbound: { rateBitsPerSecond: 8000, burst: 1279 } });
  const other = new TestPipeline(cutting);
  other.send(Outbound, udp(7, 0));
  sendSuper(other, 10);
  other.send(Outbound, udp(8, 0));
  const lengths: number[] = [];
  for (other.now = 0; other.now < 2000; other.now += 10) {
    other.settle();
    ok(other.balanced);
    lengths.push(...other.receive().far.map((bytes) => bytes.length));
  }
  deepEqual(lengths, [28, ...new Array(10).fill(128), 28]);
  const { created, consumed, dropped } = other.pipeline.ledger.counters.snapshot(0);
  deepEqual([created, consumed, dropped], [10, 1, {}]);
});

Deno.test("Shaper drops a super-packet that cannot be segmented, and the rest of one when the pool is empty", () => {
  const test = new TestPipeline(new Shaper({ outbound: { rateBitsPerSecond: 8000, burst: 50 } }));
  test.send(Outbound, encodePacket("icmp 10.9.0.1 > 192.0.2.1 type 8 payload 200"));
  test.pipeline.outbound[0]!.packets[0]!.segmentSize = 100;
  test.settle();
  for (let i = 0; i < 30; i++) sendSuper(test, 15);
  test.settle();
  ok(test.balanced);
  const { consumed, dropped } = test.pipeline.ledger.counters.snapshot(0);
  equal(dropped["super-packet of another protocol"], 1);
  ok(dropped["pool empty"]! > 0 && consumed > 0, JSON.stringify(dropped));
});

Deno.test("Shaper gives each of several workers its share of the rate", () => {
  const shaper = new Shaper({ inbound: { rateBitsPerSecond: 32_000, burst: 100 } });
  const test = new TestPipeline(shaper, { others: { place: { index: 1, count: 4 }, send: () => false } });
  for (let i = 0; i < 20; i++) test.send(Inbound, udp(1, 72));
  let bytes = 0;
  for (test.now = 0; test.now <= 1000; test.now++) {
    test.settle();
    bytes += total(test.receive().device);
  }
  // 8000 bits a second are 1000 bytes, and the burst and a packet at first.
  ok(bytes >= 1000 && bytes <= 1200, `${bytes} bytes`);
});

Deno.test("Shaper.set() changes the rate for packets that wait as well", () => {
  const shaper = new Shaper({ outbound: { rateBitsPerSecond: 8, burst: 1 } });
  const test = new TestPipeline(shaper);
  test.settle();
  for (let i = 0; i < 11; i++) test.send(Outbound, udp(1, 72));
  test.settle();
  equal(test.receive().far.length, 1);
  const { wakes } = test;
  shaper.set({ outbound: { rateBitsPerSecond: 800_000 } });
  equal(test.wakes, wakes + 1);
  const found: number[] = [];
  for (; test.now <= 12; test.now++) {
    test.settle();
    found.push(test.receive().far.length);
  }
  // 99 bytes are owed, and each packet takes a millisecond.
  deepEqual(found, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
  throws(() => shaper.set({ inbound: { rateBitsPerSecond: 1 } }), TypeError);
  throws(() => shaper.set({ outbound: { rateBitsPerSecond: 0 } }), RangeError);
  throws(
    () => new Shaper({ outbound: { rateBitsPerSecond: 1, police: true, queue: new Fifo() } }),
    TypeError,
  );
});

Deno.test("Shaper.restore() continues with the saved tokens, and refuses what save() did not return", () => {
  const make = () => new Shaper({ outbound: { rateBitsPerSecond: 8000, burst: 1000, police: true } });
  const first = make();
  const test = new TestPipeline(first);
  test.send(Outbound, udp(1, 1472));
  test.settle();
  const state = JSON.parse(JSON.stringify(first.save()));
  for (const [stage, passed] of [[make(), 1], [make(), 0]] as [Stage, number][]) {
    if (passed === 0) stage.restore!(state);
    const other = new TestPipeline(stage);
    for (other.now = 5000; other.now <= 5490; other.now += 490) {
      other.send(Outbound, udp(1, 0));
      other.settle();
    }
    equal(other.receive().far.length, 2 * passed, `passed ${passed}`);
    other.now += 20;
    other.send(Outbound, udp(1, 0));
    other.settle();
    equal(other.receive().far.length, 1);
  }
  for (const wrong of [undefined, null, 7, "x", { outbound: "x" }, { outbound: 1001 }, { outbound: null }]) {
    throws(() => make().restore(wrong), TypeError, JSON.stringify(wrong));
  }
});

Deno.test("Shaper passes on any bytes, or drops them, and every packet is accounted for", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed);
    const bands = [new Fifo({ packets: 20 }), new FqCodel({ packets: 30, target: 1, interval: 10 })];
    const test = new TestPipeline(
      new Shaper({
        outbound: { rateBitsPerSecond: 2e6, queue: new FqCodel({ packets: 40, target: 1, interval: 10 }) },
        inbound: {
          rateBitsPerSecond: 1e6,
          burst: 500,
          queue: new Priority({ bands, classify: (packet) => packet.bytes[packet.offset]! & 3 }),
        },
      }),
    );
    for (let step = 0; step < 300; step++) {
      const direction = random.below(2) === 0 ? Outbound : Inbound;
      if (test.pool.free > 60) {
        const bytes = random.below(2) === 0
          ? udp(random.below(9), random.below(900))
          : new Uint8Array(random.below(90) + 1);
        for (let i = random.below(4); i > 0; i--) bytes[random.below(bytes.length)] = random.below(256);
        test.send(direction, bytes);
        const batch = direction === Outbound ? test.pipeline.outbound[0]! : test.pipeline.fromFar;
        if (random.below(5) === 0) batch.packets[batch.length - 1]!.segmentSize = random.below(700);
      }
      if (random.below(3) > 0) continue;
      test.now += random.below(10);
      test.settle();
      test.receive();
    }
    for (const end = test.now + 2000; test.now < end; test.now += 5) test.settle();
    test.receive();
    equal(test.pipeline.queued, 0, `seed ${seed}`);
    ok(test.balanced, `seed ${seed}`);
  }
});

Deno.test("Shaper() and TokenBucket() refuse wrong options", () => {
  for (const rateBitsPerSecond of [0, -1, NaN, Infinity]) {
    throws(() => new Shaper({ outbound: { rateBitsPerSecond } }), RangeError);
  }
  for (const burst of [0, -1, NaN, Infinity]) {
    throws(() => new TokenBucket({ rateBitsPerSecond: 1, burst }), RangeError);
  }
  const queue = new Fifo();
  const both = { rateBitsPerSecond: 1, queue };
  throws(() => new Shaper({ outbound: both, inbound: both }), TypeError);
  for (const wrong of [{ packets: 0 }, { bytes: 0 }, { packets: NaN }]) {
    throws(() => new Fifo(wrong), RangeError);
  }
});
