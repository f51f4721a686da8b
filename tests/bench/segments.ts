/** `segments`: what cutting a super-packet and grouping its segments cost, beside a plain copy of the same bytes. */

import { type Packet, PacketBatch, PacketPool } from "@warren/tunnel/core";
import { sum } from "@warren/tunnel/checksum";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Coalescer, Segmenter } from "@warren/tunnel/segment";
import { Tcp } from "@warren/tunnel/tcp";
import { ratio, summarize } from "./measure.ts";
import { atMost, type Contender, type Report } from "./report.ts";
import { copy } from "../../lib/split/copy.ts";

// Implementation
const FULL = { rounds: 25, turns: 1500 };
const QUICK = { rounds: 9, turns: 500 };
const SEGMENT_BYTES = 1448;
const SEGMENTS = 44;
const PROTOCOL_TCP = 6;

/** Runs the bench in this process. */
export async function benchSegments(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, turns } = quick ? QUICK : FULL;
  const contenders = Object.entries(variants()).map(([name, run]) => ({
    name,
    run,
    figures: [] as number[],
  }));
  for (const { run } of contenders) for (let turn = 0; turn < turns; turn++) run(); // V8 compiles
  for (let round = 0; round < rounds; round++) {
    for (const { run, figures } of contenders) {
      const start = performance.now();
      for (let turn = 0; turn < turns; turn++) run();
      figures.push((performance.now() - start) * 1e6 / turns / SEGMENTS);
    }
    await new Promise((resolve) => setTimeout(resolve, 0)); // for Ctrl-C
    signal.throwIfAborted();
  }
  const of = (name: string) => contenders.find((contender) => contender.name === name)!.figures;
  const least = of("copy").map((copy, round) => copy + of("sum")[round]!);
  return {
    bench: "segments",
    metrics: [{ key: "cost_ns", title: "ns/segment", digits: 0 }],
    contenders: contenders.map(({ name, figures }): Contender => ({ name, figures: { cost_ns: figures } })),
    ratios: {
      "cost cut/copy": ratio(of("cut"), of("copy")),
      "cost cut/copy and sum": ratio(of("cut"), least),
      "cost group/sum": ratio(of("group"), of("sum")),
    },
    targets: [atMost("cost cut/copy and sum", summarize(of("cut")).median / summarize(least).median, 1.5)],
    missing: [],
    notes: [
      `A TCP super-packet of ${SEGMENTS} segments with ${SEGMENT_BYTES} bytes of payload and 12 of options, over IPv4.`,
      "copy: the payload of each into a slot. sum: the checksum of each payload, which must be read once.",
      "cut: Segmenter.start and next. group: Coalescer.group, seal and unseal. Packet.copy: into arrays of one's own.",
    ],
  };
}

function variants(): Record<string, () => void> {
  const pool = new PacketPool();
  const whole = superPacket(pool);
  const segmenter = new Segmenter();
  const coalescer = new Coalescer();
  const payload = whole.offset + whole.length - SEGMENTS * SEGMENT_BYTES;
  const segments: Packet[] = [];
  const giveAll = (): void => {
    for (let i = 0; i < SEGMENTS; i++) pool.give(segments[i]!);
  };
  const batch = new PacketBatch();
  segmenter.start(whole);
  while (segmenter.remaining > 0) batch.push(segmenter.next(pool)!);
  return {
    copy() {
      for (let i = 0; i < SEGMENTS; i++) {
        const from = payload + i * SEGMENT_BYTES;
        const segment = segments[i] = pool.take(SEGMENT_BYTES)!;
        segment.bytes.copyWithin(segment.offset, from, from + SEGMENT_BYTES);
      }
      giveAll();
    },
    sum() {
      for (let i = 0; i < SEGMENTS; i++) sum(whole.bytes, payload + i * SEGMENT_BYTES, SEGMENT_BYTES);
    },
    cut() {
      segmenter.start(whole);
      for (let i = 0; i < SEGMENTS; i++) segments[i] = segmenter.next(pool)!;
      giveAll();
    },
    group() {
      coalescer.group(batch);
      coalescer.groups[0]!.seal();
      coalescer.groups[0]!.unseal();
    },
    "Packet.copy"() {
      copy(whole);
    },
  };
}

/** As a device hands it over: with its pseudo-header's sum. */
function superPacket(pool: PacketPool): Packet {
  const packet = pool.from(Uint8Array.from({ length: SEGMENTS * SEGMENT_BYTES }, (_, i) => i * 7))!;
  const options = { timestamps: { tsval: 1, tsecr: 2 } };
  Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, ack: 1, flags: Tcp.Ack, options });
  Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: PROTOCOL_TCP });
  const { start, ip } = Tcp.of(packet)!;
  packet.view.setUint16(start + 16, ip.pseudoHeaderSum(PROTOCOL_TCP, ip.payloadLength));
  packet.segmentSize = SEGMENT_BYTES;
  packet.checksumStart = start - packet.offset;
  packet.checksumOffset = 16;
  return packet;
}
