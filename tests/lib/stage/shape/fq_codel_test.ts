/** FQ-CoDel against the pseudo-code of RFC 8289 and the text of RFC 8290. */

import { FqCodel } from "@warren/tunnel/shape";
import { Ip } from "@warren/tunnel/ip";
import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Random } from "../../../../lib/core/random.ts";
import { wrongChecksum } from "../../../kit/packets.ts";
import { QueueContext } from "./_queue_context.ts";

const HASH_KEY = [1, 2] as const;
const MTU = 1514;

/** A flow's packet of 1500 bytes, or so many. */
function bulk(flow: number, payload = 1472): string {
  return `udp 10.9.0.1:${1000 + flow} > 192.0.2.1:53 payload ${payload}`;
}

/**
 * RFC 8289 section 5, as it stands there: one queue of packets that are told by numbers, each with the time at which it
 * came and its bytes.
 */
class SlowCodel {
  readonly dropped: number[] = [];
  readonly #queue: { id: number; time: number; bytes: number }[] = [];
  readonly #target: number;
  readonly #interval: number;
  #firstAboveTime = 0;
  #dropNext = 0;
  #count = 0;
  #lastCount = 0;
  #dropping = false;

  constructor(target: number, interval: number) {
    this.#target = target;
    this.#interval = interval;
  }

  enqueue(id: number, time: number, bytes: number): void {
    this.#queue.push({ id, time, bytes });
  }

  #doDequeue(now: number): { id: number | undefined; okToDrop: boolean } {
    const packet = this.#queue.shift();
    let okToDrop = false;
    if (packet === undefined) {
      this.#firstAboveTime = 0;
      return { id: undefined, okToDrop };
    }
    const left = this.#queue.reduce((sum, { bytes }) => sum + bytes, 0);
    if (now - packet.time < this.#target || left <= MTU) this.#firstAboveTime = 0;
    else if (this.#firstAboveTime === 0) this.#firstAboveTime = now + this.#interval;
    else if (now >= this.#firstAboveTime) okToDrop = true;
    return { id: packet.id, okToDrop };
  }

  #controlLaw(time: number, count: number): number {
    return time + this.#interval / Math.sqrt(count);
  }

  dequeue(now: number): number | undefined {
    let r = this.#doDequeue(now);
    if (this.#dropping) {
      if (!r.okToDrop) this.#dropping = false;
      while (now >= this.#dropNext && this.#dropping) {
        this.dropped.push(r.id!);
        ++this.#count;
        r = this.#doDequeue(now);
        if (!r.okToDrop) this.#dropping = false;
        else this.#dropNext = this.#controlLaw(this.#dropNext, this.#count);
      }
    } else if (r.okToDrop) {
      this.dropped.push(r.id!);
      r = this.#doDequeue(now);
      this.#dropping = true;
      const delta = this.#count - this.#lastCount;
      this.#count = 1;
      if (delta > 1 && now - this.#dropNext < 16 * this.#interval) this.#count = delta;
      this.#dropNext = this.#controlLaw(now, this.#count);
      this.#lastCount = this.#count;
    }
    return r.id;
  }
}

Deno.test("FqCodel with one queue drops what RFC 8289's pseudo-code drops, and when", () => {
  let drops = 0;
  for (let seed = 1; seed <= 8; seed++) {
    const random = new Random(seed);
    const context = new QueueContext();
    const target = 1 + random.below(10);
    const interval = 20 + random.below(100);
    const queue = new FqCodel({ flows: 1, packets: 4000, bytes: Infinity, target, interval, ecn: false });
    const slow = new SlowCodel(target, interval);
    let id = 0;
    context.now = 1;
    for (let step = 0; step < 4000; step++) {
      context.now += random.below(4);
      // Times of overload, and times in which the queue empties.
      const arrivals = random.below(step % 1500 < 1000 ? 4 : 2);
      for (let i = 0; i < arrivals && queue.length < 3000; i++) {
        const payload = random.below(1400);
        queue.enqueue(context.packet(bulk(0, payload), ++id), context);
        slow.enqueue(id, context.now, payload + 28);
      }
      equal(context.done(queue.dequeue(context)), slow.dequeue(context.now), `seed ${seed}, step ${step}`);
    }
    deepEqual(context.dropped, slow.dropped, `seed ${seed}`);
    equal(queue.dropped, slow.dropped.length);
    equal(context.held, queue.length);
    drops += slow.dropped.length;
  }
  ok(drops > 1000, `only ${drops} drops were compared`);
});

Deno.test("FqCodel marks packets that are ECN-capable when it would drop others, with correct checksums", () => {
  for (const [ecn, isMarked] of [[0, false], [1, true], [2, true], [3, true]] as const) {
    const context = new QueueContext();
    const queue = new FqCodel({ hashKey: HASH_KEY });
    let marks = 0;
    for (let i = 0; i < 300; i++) queue.enqueue(context.packet(`${bulk(0)} ecn ${ecn}`, i), context);
    for (let i = 0; i < 290; i++) {
      // After a pause, several marks are due: one packet has one.
      context.now += i % 20 === 0 ? 60 : 2;
      const packet = queue.dequeue(context)!;
      const ip = Ip.of(packet)!;
      equal(wrongChecksum(packet.data), "");
      if (ip.ecn === 3) marks++;
      context.done(packet);
      if (queue.length < 5) break;
    }
    equal(queue.marked > 0, isMarked, `ecn ${ecn}`);
    equal(context.dropped.length > 0, !isMarked, `ecn ${ecn}`);
    if (ecn !== 3) equal(marks, queue.marked);
    if (!isMarked) deepEqual([...context.reasons], ["codel"]);
  }
});

Deno.test("FqCodel shares turns in bytes, whatever the lengths of packets", () => {
  const context = new QueueContext();
  const queue = new FqCodel({ hashKey: HASH_KEY, packets: 4000, bytes: Infinity, target: 1000 });
  for (let i = 0; i < 1200; i++) queue.enqueue(context.packet(bulk(1, 372), 1), context);
  for (let i = 0; i < 400; i++) queue.enqueue(context.packet(bulk(2, 1472), 2), context);
  const bytes = [0, 0, 0];
  for (let i = 0; i < 800; i++) {
    const packet = queue.dequeue(context)!;
    bytes[packet.mark]! += packet.length;
    context.done(packet);
  }
  ok(Math.abs(bytes[1]! - bytes[2]!) <= 2 * MTU, bytes.join());
});

Deno.test("FqCodel serves a flow that was empty ahead of the others, once", () => {
  const context = new QueueContext();
  const queue = new FqCodel({ hashKey: HASH_KEY, quantum: 6000 });
  const next = () => context.done(queue.dequeue(context));
  for (let i = 0; i < 20; i++) queue.enqueue(context.packet(bulk(1), 1), context);
  // Four packets are a turn.
  deepEqual([next(), next(), next(), next(), next()], [1, 1, 1, 1, 1]);
  queue.enqueue(context.packet(bulk(2), 2), context);
  equal(next(), 2);
  // It is empty, and now one of the old ones: what it sends at once waits for the end of the other one's turn.
  equal(next(), 1);
  queue.enqueue(context.packet(bulk(2), 2), context);
  deepEqual([next(), next(), next(), next()], [1, 1, 2, 1]);
});

Deno.test("FqCodel drops the oldest packets of the flow with the most bytes at the limit: half of them, at most 64", () => {
  const context = new QueueContext();
  const queue = new FqCodel({ hashKey: HASH_KEY, packets: 300 });
  for (let i = 0; i < 20; i++) queue.enqueue(context.packet(bulk(1), 10_000 + i), context);
  for (let i = 0; i < 280; i++) queue.enqueue(context.packet(bulk(2), i), context);
  deepEqual(context.dropped, []);
  queue.enqueue(context.packet(bulk(3), 20_000), context);
  deepEqual(context.dropped, Array.from({ length: 64 }, (_, i) => i));
  deepEqual([...context.reasons], ["queue full"]);
  equal(queue.length, 301 - 64);

  const small = new FqCodel({ hashKey: HASH_KEY, bytes: 4 * 2048 });
  context.dropped = [];
  for (let i = 0; i < 5; i++) small.enqueue(context.packet(bulk(1), i), context);
  deepEqual(context.dropped, [0, 1, 2]);
  equal(small.dropped, 3);
});

Deno.test("FqCodel keeps fragments in order with one another, and has a queue for packets without a flow", () => {
  const context = new QueueContext();
  const queue = new FqCodel();
  const texts = [
    "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 more payload 1480",
    "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 offset 1480 payload 1000",
    "ip fd00::1 > 2001:db8::1 protocol 17 ident 7 more payload 1400",
    "ip fd00::1 > 2001:db8::1 protocol 17 ident 7 offset 1400 payload 1000",
  ];
  for (let round = 0; round < 10; round++) {
    for (const [i, text] of texts.entries()) queue.enqueue(context.packet(text, 4 * round + i), context);
  }
  queue.enqueue(context.packet("hex 01", 1000), context);
  queue.enqueue(context.packet("hex 01", 1001), context);
  const order: number[] = [];
  while (queue.length > 0) order.push(context.done(queue.dequeue(context))!);
  for (
    const isOf of [(i: number) => i % 4 < 2 && i < 1000, (i: number) => i % 4 >= 2, (i: number) => i >= 1000]
  ) {
    const flow = order.filter(isOf);
    deepEqual(flow, flow.toSorted((a, b) => a - b));
  }
});

Deno.test("FqCodel() refuses wrong options", () => {
  for (
    const wrong of [
      { flows: 0 },
      { flows: 1.5 },
      { flows: 65_537 },
      { packets: 0 },
      { bytes: NaN },
      { quantum: 0 },
      { target: -1 },
      { interval: 0 },
    ]
  ) throws(() => new FqCodel(wrong), RangeError, JSON.stringify(wrong));
});
