/** Captures, written and read back. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Capture, type CapturedPacket, parseCapture, PcapngWriter } from "@warren/tunnel/capture";
import { Direction, PacketPool, Verdict } from "@warren/tunnel/core";
import { Tcp } from "@warren/tunnel/tcp";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { encodeIp, makePartial, packetOf, wrongChecksum } from "../../../kit/packets.ts";

const HELLO = 'udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"';

/** Output of a writer. */
class Written {
  readonly chunks: Uint8Array[] = [];
  timeOrigin = 0;

  write(blocks: Uint8Array): void {
    this.chunks.push(blocks.slice());
  }

  get bytes(): Uint8Array {
    return Uint8Array.from(this.chunks.flatMap((chunk) => [...chunk]));
  }

  get packets(): CapturedPacket[] {
    return [...parseCapture(this.chunks)];
  }
}

Deno.test("PcapngWriter writes what parseCapture() reads: names, times, directions, verdicts, comments", () => {
  const written = new Written();
  const writer = new PcapngWriter(written, { comment: "a test" });
  const first = writer.addInterface("tun0", "the first");
  const second = writer.addInterface("tun1");
  const packet = packetOf(encodePacket(HELLO));
  const comment = new TextEncoder().encode("größer");
  writer.write(packet, first, 1_763_856_000_123.456, Direction.Outbound);
  writer.write(packet, second, 0, Direction.Inbound, Verdict.Reply, comment);
  writer.write(packet, second, 1, Direction.Inbound, Verdict.Drop);
  writer.write(packet, second, 1, Direction.Inbound, Verdict.Pass);
  writer.flush();
  const told = written.packets.map((packet) => [
    packet.interface.name,
    packet.interface.description,
    packet.time,
    packet.direction,
    packet.verdict,
    packet.comments,
    formatPacket(packet.bytes),
  ]);
  deepEqual(told, [
    ["tun0", "the first", 1_763_856_000_123.456, Direction.Outbound, undefined, [], HELLO],
    ["tun1", "", 0, Direction.Inbound, Verdict.Reply, ["größer"], HELLO],
    ["tun1", "", 1, Direction.Inbound, Verdict.Drop, [], HELLO],
    ["tun1", "", 1, Direction.Inbound, Verdict.Pass, [], HELLO],
  ]);
  equal(written.packets[0]!.interface.linkType, 101);
});

Deno.test("PcapngWriter keeps the nanoseconds of a timestamp, and the microseconds of a time", () => {
  const written = new Written();
  const writer = new PcapngWriter(written);
  const tun = writer.addInterface("tun0");
  const packet = packetOf(encodePacket(HELLO));
  const exact = [0n, 999n, 1_573_830_016_444_223_380n, 2n ** 63n + 1n];
  for (const timestamp of exact) writer.write(packet, tun, timestamp, Direction.Outbound);
  const times = [0, 0.001, 1_573_830_016_444.223, 1_763_856_000_123.456];
  for (const time of times) writer.write(packet, tun, time, Direction.Outbound);
  writer.flush();
  const { packets } = written;
  deepEqual(packets.slice(0, 4).map(({ timestamp }) => timestamp), exact);
  deepEqual(packets.slice(4).map(({ time }) => time), times);
  deepEqual(packets.slice(4).map(({ timestamp }) => timestamp), [
    0n,
    1000n,
    1_573_830_016_444_223_000n,
    1_763_856_000_123_456_000n,
  ]);
});

/** A pcapng block of numbers of 32 bits and bytes, padded. */
function block(type: number, ...parts: (number | Uint8Array)[]): Uint8Array {
  const body = parts.flatMap((part) =>
    typeof part === "number"
      ? [...new Uint8Array(Uint32Array.of(part).buffer)]
      : [...part, ...new Uint8Array(-part.length & 3)]
  );
  const frame = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
  return Uint8Array.of(...frame(type), ...frame(12 + body.length), ...body, ...frame(12 + body.length));
}

/** A capture of one packet in an interface with this resolution (`if_tsresol`) and offset (seconds). */
function captureOf(
  resolution: number,
  offset: bigint,
  units: bigint,
  lengths?: [number, number],
): Uint8Array[] {
  const bytes = encodePacket(HELLO);
  const [captured, original] = lengths ?? [bytes.length, bytes.length];
  return [
    block(0x0a0d0d0a, 0x1a2b3c4d, 1, 0xffffffff, 0xffffffff),
    block(
      1,
      101,
      65535,
      9 | 1 << 16,
      resolution,
      14 | 8 << 16,
      new Uint8Array(BigInt64Array.of(offset).buffer),
    ),
    block(6, 0, Number(units >> 32n), Number(units & 0xffffffffn), captured, original, bytes),
  ];
}

Deno.test("parseCapture() reads times of every resolution to the nanosecond, rounded", () => {
  const read = (...[resolution, offset, units]: [number, bigint, bigint]) =>
    [...parseCapture(captureOf(resolution, offset, units))][0]!.timestamp;
  equal(read(9, 0n, 1_573_830_016_444_223_380n), 1_573_830_016_444_223_380n);
  equal(read(6, 0n, 1_573_830_016_444_223n), 1_573_830_016_444_223_000n);
  equal(read(0, 0n, 1_573_830_016n), 1_573_830_016_000_000_000n);
  // 2 to the -30th of a second.
  equal(read(0x80 | 30, 1_573_830_016n, 476_981_222n), 1_573_830_016_444_223_380n);
  equal(read(12, 1_573_830_016n, 444_223_380_499n), 1_573_830_016_444_223_380n);
  equal(read(9, -1n, 1n), -999_999_999n);
  equal(read(127, 0n, 2n ** 64n - 1n), 0n);
});

Deno.test("parseCapture() gives no packet more bytes than it says that it had", () => {
  const bytes = encodePacket(HELLO);
  for (const original of [0, 1, bytes.length, 9000]) {
    const [packet] = parseCapture(captureOf(6, 0n, 0n, [bytes.length, original]));
    deepEqual([packet!.bytes, packet!.originalLength], [bytes, Math.max(bytes.length, original)]);
    const record = Uint32Array.of(0xa1b2c3d4, 2 | 4 << 16, 0, 0, 65535, 101, 0, 0, bytes.length, original);
    const [old] = parseCapture([new Uint8Array(record.buffer), bytes]);
    deepEqual([old!.bytes, old!.originalLength], [bytes, Math.max(bytes.length, original)]);
  }
});

Deno.test("Capture reads the sink's origin of time for each batch", () => {
  const written = new Written();
  const test = new TestPipeline(new Capture(written));
  for (const [origin, now] of [[1000, 1], [3_601_000, 2], [500, 3]] as const) {
    written.timeOrigin = origin;
    test.now = now;
    test.send(Direction.Outbound, encodePacket(HELLO));
    test.settle();
  }
  test.pipeline.close();
  deepEqual(written.packets.map(({ time }) => time), [1001, 3_601_002, 503]);
});

Deno.test("PcapngWriter tells its sink how many packets there are in its blocks", () => {
  const counts: number[] = [];
  const writer = new PcapngWriter({ write: (_: Uint8Array, packets: number) => void counts.push(packets) });
  const tun = writer.addInterface("tun0");
  writer.flush();
  for (let i = 0; i < 3; i++) writer.write(packetOf(encodePacket(HELLO)), tun, i, Direction.Inbound);
  writer.flush();
  deepEqual(counts, [0, 3]);
});

Deno.test("PcapngWriter keeps snapLength bytes, and says how many there were", () => {
  const written = new Written();
  const writer = new PcapngWriter(written, { snapLength: 21 });
  writer.write(packetOf(encodePacket(HELLO)), writer.addInterface("tun0"), 0, Direction.Outbound);
  writer.flush();
  const [packet] = written.packets;
  deepEqual(packet!.bytes, encodePacket(HELLO).subarray(0, 21));
  equal(packet!.originalLength, 33);
});

Deno.test("PcapngWriter finishes sums, and leaves the packet as it is", () => {
  const packet = packetOf(encodePacket(HELLO));
  makePartial(packet, packet.offset + 20, 6);
  const before = packet.data.slice();
  const written = new Written();
  const writer = new PcapngWriter(written);
  writer.write(packet, writer.addInterface("tun0"), 0, Direction.Outbound);
  writer.flush();
  equal(formatPacket(written.packets[0]!.bytes), HELLO);
  deepEqual(packet.data.slice(), before);
  ok(packet.checksumStart > 0);
});

Deno.test("PcapngWriter cuts super-packets", () => {
  const packet = new PacketPool({ small: 0, large: 1 }).from(new Uint8Array(40_000).fill(7))!;
  Tcp.encode(packet, { srcPort: 1, dstPort: 2, seq: 1, flags: Tcp.Ack });
  encodeIp(packet, 4, 6);
  packet.segmentSize = 1448;
  const written = new Written();
  const writer = new PcapngWriter(written);
  writer.write(packet, writer.addInterface("tun0"), 5, Direction.Inbound, Verdict.Pass);
  writer.flush();
  const { packets } = written;
  equal(packets.length, 28);
  ok(packets.every(({ bytes, time, verdict }) => wrongChecksum(bytes) === "" && time === 5 && verdict === 0));
  equal(packets.reduce((sum, { bytes }) => sum + bytes.length - 40, 0), 40_000);
});

Deno.test("PcapngWriter starts anew when its sink says so: each file is one by itself", () => {
  const files: Uint8Array[][] = [[]];
  const writer = new PcapngWriter({
    write(blocks) {
      files.at(-1)!.push(blocks.slice());
      files.push([]);
      return true;
    },
  });
  const tun = writer.addInterface("tun0");
  for (let i = 0; i < 3; i++) {
    writer.write(packetOf(encodePacket(HELLO)), tun, i, Direction.Outbound);
    writer.flush();
  }
  deepEqual(files.slice(0, 3).map((file) => [...parseCapture(file)].map(({ time }) => time)), [[0], [1], [
    2,
  ]]);
});

Deno.test("PcapngWriter gives its sink whole blocks, and never more than a chunk", () => {
  const written = new Written();
  const writer = new PcapngWriter(written);
  const tun = writer.addInterface("tun0");
  const packet = packetOf(new Uint8Array(1500).fill(0x45));
  for (let i = 0; i < 1000; i++) writer.write(packet, tun, i, Direction.Outbound);
  writer.flush();
  ok(
    written.chunks.length > 4 &&
      written.chunks.every(({ length }) => length <= 256 * 1024 && length % 4 === 0),
  );
  equal(written.packets.length, 1000);
});

Deno.test("Capture writes what passes it, as far as its filter likes it, and what is left when it closes", () => {
  const written = new Written();
  written.timeOrigin = 1000;
  const capture = new Capture(written, {
    interface: "tun7",
    filter: ({ length }) => length > 30,
  });
  const test = new TestPipeline(capture);
  test.now = 234;
  test.send(Direction.Outbound, encodePacket(HELLO));
  test.send(Direction.Inbound, encodePacket("udp 192.0.2.1:53 > 10.9.0.1:5000"));
  test.send(Direction.Inbound, encodePacket('udp 192.0.2.1:53 > 10.9.0.1:5000 "hello"'));
  test.settle();
  equal(test.receive().device.length, 2);
  ok(test.balanced);
  test.pipeline.close();
  deepEqual(written.packets.map(({ time, direction, interface: { name } }) => [time, direction, name]), [
    [1234, Direction.Outbound, "tun7"],
    [1234, Direction.Inbound, "tun7"],
  ]);
  equal(capture.packets, 2);
});

Deno.test("Capture.handler() writes packets as they were before, with their verdicts", () => {
  const written = new Written();
  const capture = new Capture(written);
  const handler = capture.handler((packet, context) => {
    const first = packet.bytes[packet.offset]!;
    packet.bytes[packet.offset] = 9;
    if (first === 3) context.drop(packet, "odd");
    return [Verdict.Pass, Verdict.Drop, Verdict.Reply, undefined][first];
  });
  const test = new TestPipeline({
    name: "handler",
    outbound(batch, context) {
      for (const packet of batch) {
        const verdict = handler(packet, context);
        if (verdict === Verdict.Drop) context.drop(packet, "dropped");
        if (verdict === Verdict.Reply) context.emit(packet, Direction.Inbound);
      }
    },
  });
  test.put(Direction.Outbound, [0, 1, 2, 3]);
  test.settle();
  test.receive();
  capture.close();
  deepEqual(written.packets.map(({ bytes, verdict }) => [bytes[0], verdict]), [
    [0, Verdict.Pass],
    [1, Verdict.Drop],
    [2, Verdict.Reply],
    [3, undefined],
  ]);
});

Deno.test("Capture and PcapngWriter refuse options that make no sense", () => {
  for (
    const options of [{ snapLength: 0 }, { chunkLength: 1000 }, { flushInterval: -1 }, { snapLength: NaN }]
  ) {
    throws(() => new Capture({ write: () => {} }, options), RangeError);
  }
});

/** A pcap file of one packet. */
function pcap(magic: number, littleEndian: boolean, fraction: number): Uint8Array {
  const bytes = new Uint8Array(24 + 16 + 4);
  const view = new DataView(bytes.buffer);
  [magic, 0x00020004, 0, 0, 65_535, 101].forEach((word, i) => view.setUint32(4 * i, word, littleEndian));
  [7, fraction, 4, 60].forEach((word, i) => view.setUint32(24 + 4 * i, word, littleEndian));
  bytes.set([0x45, 1, 2, 3], 40);
  return bytes;
}

Deno.test("parseCapture() reads pcap of either byte order, in micro- and nanoseconds", () => {
  for (const littleEndian of [true, false]) {
    const files = [pcap(0xa1b2c3d4, littleEndian, 123_456), pcap(0xa1b23c4d, littleEndian, 123_456_000)];
    for (const file of files) {
      const [packet] = parseCapture([file]);
      const { time, bytes, originalLength, interface: { linkType } } = packet!;
      deepEqual([time, bytes.toHex(), originalLength, linkType], [7123.456, "45010203", 60, 101]);
    }
  }
});

Deno.test("parseCapture() reads a capture whatever the pieces that it comes in", () => {
  const written = new Written();
  const writer = new PcapngWriter(written);
  const tun = writer.addInterface("tun0");
  for (let i = 0; i < 20; i++) writer.write(packetOf(encodePacket(HELLO)), tun, i, Direction.Outbound);
  writer.flush();
  const { bytes } = written;
  for (const piece of [1, 3, 100, 1000]) {
    const pieces = [];
    for (let at = 0; at < bytes.length; at += piece) pieces.push(bytes.subarray(at, at + piece));
    equal([...parseCapture(pieces)].length, 20, `${piece} bytes`);
  }
});

Deno.test("parseCapture() names the byte where a capture stops making sense", () => {
  const written = new Written();
  const writer = new PcapngWriter(written);
  writer.write(packetOf(encodePacket(HELLO)), writer.addInterface("tun0"), 0, Direction.Outbound);
  writer.flush();
  const { bytes } = written;
  throws(
    () => [...parseCapture([bytes.subarray(0, bytes.length - 1)])],
    /ends within a block, .* at byte \d+$/,
  );
  throws(() => [...parseCapture([])], SyntaxError);
  throws(() => [...parseCapture([new Uint8Array(40)])], /neither pcapng nor pcap at byte 0$/);
  const changed = bytes.slice();
  changed[changed.length - 1] = 1;
  throws(() => [...parseCapture([changed])], /two different lengths at byte \d+$/);
});

Deno.test("parseCapture() throws SyntaxErrors alone, whatever the bytes", () => {
  const random = new Random(3);
  const written = new Written();
  const writer = new PcapngWriter(written);
  const tun = writer.addInterface("tun0", "described");
  for (let i = 0; i < 5; i++) {
    writer.write(packetOf(encodePacket(HELLO)), tun, i, Direction.Outbound, Verdict.Pass, Uint8Array.of(65));
  }
  writer.flush();
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const bytes = written.bytes.slice();
    for (let i = random.below(6); i >= 0; i--) bytes[random.below(bytes.length)] = random.below(256);
    try {
      for (const packet of parseCapture([bytes.subarray(0, random.below(bytes.length + 1))])) void packet;
    } catch (error) {
      ok(error instanceof SyntaxError, String(error));
      refused++;
    }
  }
  ok(refused > 1000);
});
