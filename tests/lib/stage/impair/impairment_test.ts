/** Impairment with a fake clock: probabilities against theory, delays against netem, reproducibility by seed. */

import { Direction } from "@warren/tunnel/core";
import { Impairment, type Impairments } from "@warren/tunnel/impair";
import { deepEqual, equal, notDeepEqual, ok, throws } from "node:assert/strict";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { makePartial, wrongChecksum } from "../../../kit/packets.ts";

const { Outbound, Inbound } = Direction;
const COUNT = 100_000;
const SEED = 7;

/** A packet that tells its number. */
function numbered(number: number, payload = 8): Uint8Array {
  const bytes = encodePacket(`udp 10.9.0.1:5000 > 192.0.2.1:53 payload ${payload}`);
  new DataView(bytes.buffer).setUint32(28, number);
  return bytes;
}

function numberOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(28);
}

/** Result of packets that were sent at a fixed interval. */
interface Outcome {
  /** Numbers of the packets that arrived, in order of arrival. */
  readonly numbers: number[];
  /** Delays of these packets (milliseconds). */
  readonly delays: number[];
  readonly packets: Uint8Array[];
  readonly impairment: Impairment;
}

function run(options: Impairments, count = COUNT, apart = 0, seed = SEED, impairment?: Impairment): Outcome {
  const stage = impairment ?? new Impairment({ seed, outbound: options });
  const test = new TestPipeline(stage);
  const outcome: Outcome = { numbers: [], delays: [], packets: [], impairment: stage };
  const sentAt: number[] = [];
  const packet = numbered(0);
  const view = new DataView(packet.buffer);
  const receive = () => {
    test.settle();
    for (const bytes of test.receive().far) {
      const number = numberOf(bytes);
      outcome.numbers.push(number);
      outcome.delays.push(test.now - sentAt[number]!);
      outcome.packets.push(bytes);
    }
  };
  for (let i = 0; i < count; i++) {
    const next = i * apart;
    while (test.pipeline.due <= next && test.pipeline.due > test.now) {
      test.now = test.pipeline.due;
      receive();
    }
    test.now = next;
    view.setUint32(28, i);
    sentAt[i] = test.now;
    test.send(Outbound, packet);
    receive();
  }
  while (test.pipeline.queued > 0) {
    test.now = test.pipeline.due;
    receive();
  }
  ok(test.balanced);
  return outcome;
}

/** The deviation of how often something happens of so many times. */
function deviation(probability: number, count = COUNT): number {
  return Math.sqrt(count * probability * (1 - probability));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function spread(values: readonly number[]): number {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - middle) ** 2)));
}

for (const loss of [0.001, 0.01, 0.5, 0.999]) {
  Deno.test(`Impairment loses ${loss} of ${COUNT} packets, within 4 deviations of chance`, () => {
    const { numbers, impairment } = run({ loss });
    const lost = COUNT - numbers.length;
    ok(Math.abs(lost - COUNT * loss) < 4 * deviation(loss), `${lost} are lost`);
    equal(impairment.stats(Outbound).lost, lost);
    equal(impairment.stats(Outbound).packets, COUNT);
  });
}

for (
  const [toBad, toGood, lossInBad, lossInGood] of [[0.01, 0.2, 1, 0], [0.05, 0.5, 0.7, 0.01], [
    0.3,
    0.1,
    1,
    0,
  ]] as const
) {
  Deno.test(`Impairment loses packets in bursts as theory predicts for Gilbert and Elliott's ${toBad}, ${toGood}, ${lossInBad}, ${lossInGood}`, () => {
    const { numbers } = run({ gilbertElliott: { toBad, toGood, lossInBad, lossInGood } });
    // The link is bad for a share of p / (p + r), for 1 / r packets each time.
    const bad = toBad / (toBad + toGood);
    const loss = bad * lossInBad + (1 - bad) * lossInGood;
    // Packets of one time resemble each other: as if there were fewer of them.
    const memory = 1 - toBad - toGood;
    const limit = 4 * deviation(loss) * Math.sqrt((1 + memory) / (1 - memory));
    const lost = COUNT - numbers.length;
    ok(Math.abs(lost - COUNT * loss) < limit, `${lost} are lost, not ${COUNT * loss}`);
    if (lossInBad < 1 || lossInGood > 0) return;
    const gaps = numbers.map((number, i) => number - (numbers[i - 1] ?? -1) - 1).filter((gap) => gap > 0);
    const length = mean(gaps);
    // Bursts are geometric: of mean 1 / r and deviation sqrt(1 - r) / r.
    const tolerance = 4 * Math.sqrt(1 - toGood) / toGood / Math.sqrt(gaps.length);
    ok(Math.abs(length - 1 / toGood) < tolerance, `bursts are ${length} long, not ${1 / toGood}`);
  });
}

Deno.test("Impairment with a correlation loses packets in runs, and at a probability of a half still loses half", () => {
  const apart = run({ loss: 0.5 });
  const together = run({ loss: { probability: 0.5, correlation: 0.6 } });
  const bursts = ({ numbers }: Outcome) =>
    mean(numbers.map((number, i) => number - (numbers[i - 1] ?? -1) - 1).filter((gap) => gap > 0));
  ok(Math.abs(bursts(apart) - 2) < 0.1, `${bursts(apart)}`);
  ok(bursts(together) > 2.5, `${bursts(together)}`);
  ok(Math.abs(together.numbers.length / COUNT - 0.5) < 0.02);
});

for (const [distribution, part] of [["uniform", 1 / Math.sqrt(3)], ["normal", 1]] as const) {
  Deno.test(`Impairment's ${distribution} delays have their mean and deviation`, () => {
    const { delays } = run({ delay: 100, jitter: 10, distribution, limit: 200 }, COUNT, 1);
    const wanted = 10 * part;
    equal(delays.length, COUNT);
    ok(Math.abs(mean(delays) - 100) < 4 * wanted / Math.sqrt(COUNT), `${mean(delays)}`);
    ok(Math.abs(spread(delays) - wanted) < 0.01 * wanted, `${spread(delays)}`);
    if (distribution === "uniform") {
      for (const delay of delays) ok(delay >= 90 - 1e-6 && delay <= 110 + 1e-6, `${delay}`);
    } else {
      const near = delays.filter((delay) => Math.abs(delay - 100) < 10).length / COUNT;
      ok(Math.abs(near - 0.6827) < 0.01, `${near} are within a deviation`);
    }
  });
}

Deno.test("Impairment's pareto and paretonormal delays are early more often than late, and late ones later", () => {
  for (const distribution of ["pareto", "paretonormal"] as const) {
    const { delays } = run({ delay: 100, jitter: 10, distribution, limit: 250 }, 50_000, 1);
    const sorted = delays.toSorted((a, b) => a - b);
    const median = sorted[sorted.length / 2]!;
    // The means of iproute2's tables, cut off at 4: -0.0335 and -0.0253; their medians -0.320 and -0.240.
    const [middle, half] = distribution === "pareto" ? [99.665, 96.8] : [99.747, 97.6];
    ok(Math.abs(mean(delays) - middle) < 0.15, `${distribution}: ${mean(delays)}`);
    ok(Math.abs(median - half) < 0.15, `${distribution}: ${median}`);
    ok(sorted.at(-1)! > 130 && sorted[0]! > 80, `${distribution}: ${sorted[0]} to ${sorted.at(-1)}`);
  }
});

Deno.test("Impairment's jitter reorders packets, and not when there is a rate", () => {
  const isOrdered = ({ numbers }: Outcome) =>
    numbers.every((number, i) => i === 0 || number > numbers[i - 1]!);
  const jitter = { delay: 20, jitter: 10, limit: 200 };
  equal(isOrdered(run(jitter, 1000, 1)), false);
  equal(isOrdered(run({ ...jitter, rateBitsPerSecond: 1e6 }, 1000, 1)), true);
});

Deno.test("Impairment duplicates as many packets as `duplicate` says, back to back, and copies are whole", () => {
  const { numbers, packets, impairment } = run({ duplicate: 0.1 });
  const { duplicated } = impairment.stats(Outbound);
  equal(numbers.length, COUNT + duplicated);
  ok(Math.abs(duplicated - COUNT * 0.1) < 4 * deviation(0.1), `${duplicated}`);
  for (const [i, number] of numbers.entries()) ok(i === 0 || number - numbers[i - 1]! <= 1);
  for (const bytes of packets.slice(0, 1000)) {
    equal(bytes.toHex(), numbered(numberOf(bytes)).toHex().slice(0, 56) + bytes.subarray(28).toHex());
  }
});

Deno.test("Impairment copies a packet with its marks, ends, addresses and partial checksum", () => {
  const test = new TestPipeline(new Impairment({ seed: SEED, outbound: { duplicate: 1 } }));
  test.send(Outbound, numbered(1));
  const packet = test.pipeline.outbound[0]!.packets[0]!;
  makePartial(packet, packet.offset + 20, 6);
  Object.assign(packet, { from: 1, to: 2, mark: 3, time: 4 });
  packet.endpoint.fill(0x5a);
  test.settle();
  const told = Array.from(
    test.pipeline.forFar,
    ({ from, to, mark, time, endpoint, data }) => ({
      from,
      to,
      mark,
      time,
      endpoint: endpoint.toHex(),
      data: data.toHex(),
    }),
  );
  equal(told.length, 2);
  deepEqual(told[0], told[1]);
  deepEqual(told[0]!.mark, 3);
  for (const bytes of test.receive().far) equal(wrongChecksum(bytes), "");
});

Deno.test("Impairment keeps the order of packets that are due together", () => {
  const test = new TestPipeline(new Impairment({ seed: SEED, outbound: { delay: 10 } }));
  for (let i = 0; i < 60; i++) test.send(Outbound, numbered(i));
  test.settle();
  test.now = 10;
  test.settle();
  deepEqual(test.receive().far.map(numberOf), Array.from({ length: 60 }, (_, i) => i));
});

Deno.test("Impairment flips one bit of the packets that it corrupts, anywhere, and leaves their checksums wrong", () => {
  const sent = encodePacket('udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"');
  const test = new TestPipeline(new Impairment({ seed: SEED, outbound: { corrupt: 0.5 } }));
  const places = new Set<number>();
  let flipped = 0;
  for (let i = 0; i < 10_000; i++) {
    test.send(Outbound, sent);
    test.settle();
    const [bytes] = test.receive().far;
    const bits = Array.from(sent, (byte, at) => (byte ^ bytes![at]!).toString(2).padStart(8, "0")).join("");
    const ones = bits.match(/1/g)?.length ?? 0;
    ok(ones <= 1);
    if (ones === 1) places.add(bits.indexOf("1"));
    flipped += ones;
  }
  ok(Math.abs(flipped - 5000) < 4 * deviation(0.5, 10_000), `${flipped}`);
  equal(places.size, sent.length * 8);

  // A partial checksum, completed later, would cover the flipped bit.
  const partial = new TestPipeline(new Impairment({ seed: SEED, outbound: { corrupt: 1 } }));
  let wrong = 0;
  for (let i = 0; i < 200; i++) {
    partial.send(Outbound, sent);
    const packet = partial.pipeline.outbound[0]!.packets[0]!;
    makePartial(packet, packet.offset + 20, 6);
    partial.settle();
    const [bytes] = partial.receive().far;
    // A flipped bit of the header may leave no checksum to look at.
    if (bytes!.subarray(0, 26).toHex() !== sent.subarray(0, 26).toHex()) continue;
    ok(wrongChecksum(bytes!) !== "");
    wrong++;
  }
  ok(wrong > 20, `${wrong}`);
});

Deno.test("Impairment lets some packets overtake those that wait, only every nth with a gap", () => {
  const all = run({ delay: 10, reorder: 0.25 }, 20_000, 1);
  const { reordered } = all.impairment.stats(Outbound);
  equal(all.delays.filter((delay) => delay === 0).length, reordered);
  ok(Math.abs(reordered - 5000) < 4 * deviation(0.25, 20_000), `${reordered}`);
  // By netem's words: 4 are delayed, and each one behind them goes at once by a chance of a half, 2 on the average.
  const some = run({ delay: 10, reorder: 0.5, gap: 5 }, 20_000, 1);
  const early = some.numbers.filter((_, i) => some.delays[i] === 0).toSorted((a, b) => a - b);
  const distances = early.map((number, i) => number - (early[i - 1] ?? -1));
  ok(Math.min(...distances) === 5);
  ok(Math.abs(mean(distances) - 6) < 0.15, `${mean(distances)}`);
});

Deno.test("Impairment sends at the rate of its link, and the queue is bounded", () => {
  const test = new TestPipeline(
    new Impairment({ seed: SEED, outbound: { rateBitsPerSecond: 1e6, delay: 5, limit: 100 } }),
  );
  let bytes = 0;
  for (test.now = 0; test.now <= 2000; test.now++) {
    for (let i = 0; i < 4; i++) test.send(Outbound, numbered(i, 1000));
    test.settle();
    bytes += test.receive().far.reduce((sum, { length }) => sum + length, 0);
    ok(test.pipeline.queued <= 100 && test.balanced);
  }
  ok(Math.abs(bytes / (1e6 / 8 * 2) - 1) < 0.01, `${bytes}`);
  ok(test.pipeline.ledger.counters.snapshot(0).dropped["queue full"]! > 0);
});

Deno.test("Impairment treats the same packets alike with the same seed, and otherwise with another", () => {
  const options: Impairments = {
    delay: 20,
    jitter: 10,
    distribution: "paretonormal",
    delayCorrelation: 0.3,
    loss: { probability: 0.1, correlation: 0.2 },
    duplicate: 0.1,
    corrupt: 0.1,
    reorder: 0.1,
  };
  const fate = (seed: number) => {
    const { packets, delays } = run(options, 2000, 1, seed);
    return packets.map((bytes, i) => `${bytes.toHex()} ${delays[i]}`);
  };
  deepEqual(fate(1), fate(1));
  notDeepEqual(fate(1), fate(2));
  ok(Number.isInteger(new Impairment({}).seed));
});

Deno.test("Impairment loses the same packets when the delay changes, and others in the other direction", () => {
  const { numbers } = run({ loss: 0.1 }, 2000, 1);
  const delayed = run({ loss: 0.1, delay: 30, jitter: 20, corrupt: 0, limit: 200 }, 2000, 1);
  deepEqual(delayed.numbers.toSorted((a, b) => a - b), numbers);
  const test = new TestPipeline(new Impairment({ seed: SEED, inbound: { loss: 0.1 } }));
  const others: number[] = [];
  for (let i = 0; i < 2000; i++) {
    test.send(Inbound, numbered(i));
    test.settle();
    others.push(...test.receive().device.map(numberOf));
  }
  notDeepEqual(others, numbers);
});

Deno.test("Impairment.restore() continues where save() was, and refuses what save() did not return", () => {
  const options: Impairments = {
    gilbertElliott: { toBad: 0.1, toGood: 0.2 },
    delay: 5,
    jitter: 3,
    duplicate: 0.2,
    reorder: 0.3,
    gap: 3,
  };
  const { impairment } = run(options, 777, 1);
  const state = JSON.parse(JSON.stringify(impairment.save()));
  const other = new Impairment({ seed: 999, outbound: options });
  other.restore(state);
  const fate = ({ numbers, delays }: Outcome, first: number) =>
    numbers.map((number, i) => `${number - first} ${delays[i]!.toFixed(6)}`).filter((text) =>
      !text.startsWith("-")
    );
  const second = run(options, 500, 1, 0, other);
  deepEqual(fate(second, 0), fate(run(options, 1277, 1), 777));
  notDeepEqual(run(options, 500, 1, 999).numbers, second.numbers);
  const wrongs = [undefined, null, 7, {}, { outbound: state.outbound }, { ...state, inbound: { rows: [] } }];
  const broken = structuredClone(state);
  broken.outbound.rows[2].random = [0, 0, 0, 0];
  for (const wrong of [...wrongs, broken]) throws(() => other.restore(wrong), TypeError);
});

Deno.test("Impairment.set() changes one direction from now on; packets that wait keep their release time", () => {
  const impairment = new Impairment({ seed: SEED, outbound: { delay: 50 }, inbound: { loss: 1 } });
  const test = new TestPipeline(impairment);
  test.settle();
  test.send(Outbound, numbered(1));
  test.settle();
  impairment.set({ outbound: { delay: 10 } });
  test.send(Outbound, numbered(2));
  test.send(Inbound, numbered(3));
  test.settle();
  equal(impairment.stats(Outbound).queued, 2);
  test.now = 10;
  test.settle();
  deepEqual(test.receive().far.map(numberOf), [2]);
  impairment.set({ outbound: {} });
  test.send(Outbound, numbered(4));
  test.settle();
  deepEqual(test.receive().far.map(numberOf), [4]);
  test.now = 50;
  test.send(Outbound, numbered(5));
  test.settle();
  deepEqual(test.receive().far.map(numberOf), [1, 5]);
});

Deno.test("Impairment decides about each segment of a super-packet", () => {
  const impairment = new Impairment({ seed: SEED, outbound: { loss: 0.5 } });
  const test = new TestPipeline(impairment);
  let received = 0;
  for (let i = 0; i < 200; i++) {
    test.send(Outbound, encodePacket("udp 10.9.0.1:5000 > 192.0.2.1:53 payload 1000"));
    test.pipeline.outbound[0]!.packets[0]!.segmentSize = 100;
    test.settle();
    const { far } = test.receive();
    for (const bytes of far) equal(wrongChecksum(bytes), "");
    received += far.length;
  }
  equal(impairment.stats(Outbound).packets, 2000);
  ok(Math.abs(received - 1000) < 4 * deviation(0.5, 2000), `${received}`);
  ok(test.balanced);
});

Deno.test("Impairment takes any bytes, even with no slot left, and every packet is accounted for", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const all: Impairments = { delay: 5, jitter: 9, loss: 0.1, duplicate: 0.4, corrupt: 0.3, reorder: 0.1 };
    const test = new TestPipeline(
      new Impairment({ seed, outbound: all, inbound: { ...all, rateBitsPerSecond: 1e5, limit: 120 } }),
    );
    for (let step = 0; step < 600; step++) {
      const direction = random.below(2) === 0 ? Outbound : Inbound;
      if (test.pool.free > 0) {
        const bytes = random.below(2) === 0
          ? numbered(7, 8 + random.below(900))
          : new Uint8Array(random.below(90) + 1);
        for (let i = random.below(4); i > 0; i--) bytes[random.below(bytes.length)] = random.below(256);
        test.send(direction, bytes);
        const batch = direction === Outbound ? test.pipeline.outbound[0]! : test.pipeline.fromFar;
        const packet = batch.packets[batch.length - 1]!;
        if (random.below(5) === 0) packet.segmentSize = random.below(700);
        if (random.below(5) === 0) {
          [packet.checksumStart, packet.checksumOffset] = [random.below(90), random.below(20)];
        }
      }
      if (random.below(5) === 0) test.now += random.below(4);
      test.settle();
      ok(test.balanced, `seed ${seed}, step ${step}`);
      for (const batch of [test.pipeline.forFar, test.pipeline.forDevice]) {
        for (const packet of batch) packet.segmentSize = packet.checksumStart = 0;
      }
      if (random.below(4) === 0) test.receive();
    }
    for (let i = 0; i < 10_000 && test.pipeline.queued > 0; i++) {
      test.now += 10;
      test.settle();
      test.receive();
    }
    equal(test.pipeline.queued, 0);
  }
});

Deno.test("Impairment() and set() refuse wrong options", () => {
  const ranges: Impairments[] = [
    { delay: -1 },
    { jitter: NaN },
    { delayCorrelation: 1.1 },
    { loss: 1.5 },
    { loss: { probability: 0.5, correlation: -1 } },
    { duplicate: -0.1 },
    { corrupt: NaN },
    { gap: 0 },
    { rateBitsPerSecond: 0 },
    { limit: 0 },
    { gilbertElliott: { toBad: 2, toGood: 0 } },
    { gilbertElliott: { toBad: 0, toGood: 0, lossInBad: -1 } },
  ];
  for (const outbound of ranges) {
    throws(() => new Impairment({ outbound }), RangeError, JSON.stringify(outbound));
  }
  throws(() => new Impairment({ seed: 0.5 }), RangeError);
  const impairment = new Impairment({});
  throws(() => impairment.set({ inbound: { reorder: 0.1 } }), TypeError);
  throws(() => impairment.set({ inbound: { loss: 0, gilbertElliott: { toBad: 0, toGood: 1 } } }), TypeError);
  throws(() => impairment.set({ inbound: { distribution: "flat" as "normal" } }), TypeError);
});
