/**
 * Tests of lib/split/segmenter.ts. The oracles share no code with it: a segmenter written out of the RFCs, byte by byte, and
 * RFC 1071's loop.
 */

import { HEADROOM, LARGE_ROOM, type Packet, PacketBatch, PacketPool } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Coalescer, Segmenter, type SegmentGroup, Unsegmentable } from "@warren/tunnel/segment";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import fc from "fast-check";
import { deepEqual, equal, notEqual } from "node:assert/strict";
import { Random } from "../../../lib/core/random.ts";
import {
  hex,
  IPV4_DST,
  IPV4_SRC,
  IPV6_DST,
  IPV6_SRC,
  makePartial,
  wrongChecksum,
} from "../../kit/packets.ts";
import { copy } from "../../../lib/split/copy.ts";

const TCP = 6;
const UDP = 17;
const FILL = 0xa5;

/** Fields of a packet. */
interface Shape {
  version: 4 | 6;
  protocol: typeof TCP | typeof UDP;
  /** Payload length (bytes). */
  size: number;
  segmentSize: number;
  flags?: number;
  seq?: number;
  urgentPointer?: number;
  tcpOptions?: Uint8Array;
  /** IPv4 options, in words. */
  ipOptions?: number;
  /** IPv6 extension headers, by their number. */
  extensions?: number[];
  id?: number;
  dontFragment?: boolean;
  /** State of the transport checksum. */
  sum?: "partial" | "finished" | "none" | "wrong";
  port?: number;
}

function poolOf(small = 256, large = 4): PacketPool {
  const pool = new PacketPool({ small, large });
  pool.bytes.fill(FILL);
  return pool;
}

/** A packet with a payload that is a count of its bytes, so that a byte out of place shows. */
function packetOf(pool: PacketPool, shape: Shape): Packet {
  const { version, protocol, size, seq = 1000, flags = Tcp.Ack, urgentPointer = 0, port = 5000 } = shape;
  const packet = pool.take(size)!;
  for (let i = 0; i < size; i++) packet.bytes[packet.offset + i] = (seq + i) * 7 + (seq + i >> 8);
  if (protocol === UDP) Udp.encode(packet, { srcPort: port, dstPort: 443 });
  else {
    const options = shape.tcpOptions ?? new Uint8Array(0);
    Tcp.encode(packet, { srcPort: port, dstPort: 443, seq, ack: 77, flags, urgentPointer, options });
  }
  const field = protocol === UDP ? 6 : 16;
  let transport: number;
  if (version === 4) {
    const { id = 0xfffe, dontFragment = false, ipOptions = 0 } = shape;
    Ipv4.encode(packet, { src: IPV4_SRC, dst: IPV4_DST, protocol, id, dontFragment, ttl: 61, ecn: 1 });
    addIpv4Options(packet, ipOptions);
    transport = 20 + ipOptions * 4;
  } else {
    const { extensions = [] } = shape;
    let next: number = protocol;
    for (const extension of extensions.toReversed()) {
      packet.prepend(8);
      packet.bytes.set([next, 0, 1, 4, 0, 0, 0, 0], packet.offset); // PadN; a route with no segments left; atomic
      if (extension === 43) packet.bytes.set([0, 0], packet.offset + 2);
      if (extension === 44) packet.bytes.set([0, 0, 0, 9, 9, 9], packet.offset + 2);
      next = extension;
    }
    const fields = { src: IPV6_SRC, dst: IPV6_DST, nextHeader: next, hopLimit: 61, flowLabel: 0xabcde };
    Ipv6.encode(packet, { ...fields, trafficClass: 1 });
    transport = 40 + extensions.length * 8;
  }
  const start = packet.offset + transport;
  const { sum = "partial" } = shape;
  if (sum === "partial") makePartial(packet, start, field);
  if (sum === "none") packet.view.setUint16(start + field, 0);
  if (sum === "wrong") packet.view.setUint16(start + field, packet.view.getUint16(start + field) ^ 0x0100);
  packet.segmentSize = shape.segmentSize;
  return packet;
}

function addIpv4Options(packet: Packet, words: number): void {
  if (words === 0) return;
  const header = packet.data.slice(0, 20);
  packet.strip(20);
  packet.prepend(20 + 4 * words);
  packet.bytes.fill(1, packet.offset + 20, packet.offset + 20 + 4 * words); // No Operation
  header[0] = 0x45 + words;
  header[2] = packet.length >> 8;
  header[3] = packet.length & 0xff;
  writeSum(header, 10, [...header, ...new Array(4 * words).fill(1)]);
  packet.bytes.set(header, packet.offset);
}

/** Writes RFC 1071's checksum of all bytes into a field, which counts as zero. */
function writeSum(bytes: Uint8Array, field: number, covered: number[] | Uint8Array, inField = field): void {
  let total = 0;
  covered.forEach((byte, i) => {
    if (i !== inField && i !== inField + 1) total += i % 2 === 0 ? byte * 256 : byte;
  });
  while (total > 0xffff) total = total % 0x10000 + Math.floor(total / 0x10000);
  total = 0xffff - total;
  bytes[field] = total >> 8;
  bytes[field + 1] = total & 0xff;
}

/** The segments of a super-packet, as the RFCs would have them. Knows what {@linkcode packetOf} makes. */
function slowlyCut(whole: Uint8Array, segmentSize: number, withSum: boolean): Uint8Array[] {
  const isIpv4 = whole[0]! >> 4 === 4;
  let transport = isIpv4 ? (whole[0]! & 0x0f) * 4 : 40;
  let protocol = whole[isIpv4 ? 9 : 6]!;
  while (!isIpv4 && protocol !== TCP && protocol !== UDP) {
    protocol = whole[transport]!;
    transport += 8;
  }
  const isTcp = protocol === TCP;
  const headers = transport + (isTcp ? (whole[transport + 12]! >> 4) * 4 : 8);
  const read = (at: number, count: number): number => {
    let value = 0;
    for (let i = 0; i < count; i++) value = value * 256 + whole[at + i]!;
    return value;
  };
  const segments: Uint8Array[] = [];
  let from = headers;
  do {
    const to = Math.min(whole.length, from + segmentSize);
    const isFirst = from === headers;
    const isLast = to === whole.length;
    const segment = new Uint8Array([...whole.subarray(0, headers), ...whole.subarray(from, to)]);
    const write = (at: number, count: number, value: number): void => {
      for (let i = count - 1; i >= 0; i--, value = Math.floor(value / 256)) segment[at + i] = value % 256;
    };
    if (isIpv4) {
      write(2, 2, segment.length);
      write(4, 2, (read(4, 2) + segments.length) % 0x10000);
      writeSum(segment, 10, segment.slice(0, transport));
    } else write(4, 2, segment.length - 40);
    if (isTcp) {
      const consumed = from - headers;
      write(transport + 4, 4, (read(transport + 4, 4) + consumed) % 2 ** 32);
      const flags = { fin: 1, psh: 8, urg: 32, cwr: 128 };
      let set = whole[transport + 13]!;
      if (!isLast) set &= ~(flags.fin | flags.psh);
      if (!isFirst) set &= ~flags.cwr;
      if ((set & flags.urg) !== 0) {
        const left = read(transport + 18, 2) - consumed;
        if (left <= 0 && !isFirst) set &= ~flags.urg;
        write(transport + 18, 2, Math.max(0, left));
      }
      segment[transport + 13] = set;
    } else write(transport + 4, 2, segment.length - transport);
    if (withSum) {
      const length = segment.length - transport;
      const addresses = isIpv4 ? segment.slice(12, 20) : segment.slice(8, 40);
      const upper = segment.slice(transport);
      const field = isTcp ? 16 : 6;
      const covered = [
        ...upper,
        ...(length % 2 ? [0] : []),
        ...addresses,
        length >> 8,
        length & 255,
        0,
        protocol,
      ];
      writeSum(segment, transport + field, covered, field);
      const at = transport + field;
      if (!isTcp && segment[at] === 0 && segment[at + 1] === 0) segment.fill(0xff, at, at + 2);
    }
    segments.push(segment);
    from = to;
  } while (from < whole.length);
  return segments;
}

/** All segments, cut in one go. */
function cutAll(packet: Packet, pool: PacketPool = poolOf(9000, 0)): Packet[] {
  const segmenter = new Segmenter();
  equal(segmenter.start(packet), undefined);
  const count = segmenter.remaining;
  const segments: Packet[] = [];
  while (segmenter.remaining > 0) segments.push(segmenter.next(pool)!);
  equal(segments.length, count);
  return segments;
}

const shapes: fc.Arbitrary<Shape> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  protocol: fc.constantFrom<6 | 17>(TCP, UDP),
  size: fc.oneof(fc.integer({ min: 0, max: 9000 }), fc.constantFrom(1448, 2896, 4344)),
  segmentSize: fc.oneof(fc.integer({ min: 100, max: 1600 }), fc.constantFrom(1448, 2896, 9000, 65_535)),
  flags: fc.constantFrom(0x10, 0x18, 0x11, 0x19, 0x90, 0xd9, 0x30, 0x20, 0xfa & ~0x06),
  seq: fc.oneof(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0xfffff000, max: 0xffffffff })),
  urgentPointer: fc.integer({ min: 0, max: 5000 }),
  tcpOptions: fc.uint8Array({ maxLength: 40 }),
  ipOptions: fc.integer({ min: 0, max: 10 }),
  extensions: fc.array(fc.constantFrom(43, 44, 60), { maxLength: 3 }),
  id: fc.constantFrom(0, 1, 0xfffd, 0xffff),
  dontFragment: fc.boolean(),
  sum: fc.constantFrom("partial" as const, "finished" as const),
});

Deno.test("Segmenter.next() equals a segmenter written from the RFCs", () => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const pool = poolOf(100, 4);
      const packet = packetOf(pool, shape);
      const before = packet.data.slice();
      const expected = slowlyCut(before, shape.segmentSize, true);
      const segments = cutAll(packet, pool).map((segment) => {
        deepEqual([segment.segmentSize, segment.checksumStart, segment.checksumOffset], [0, 0, 0]);
        const bytes = segment.data.slice();
        pool.give(segment);
        return bytes;
      });
      deepEqual(segments, expected);
      for (const segment of segments) equal(wrongChecksum(segment), "");
      deepEqual(packet.data, before); // only read
      deepEqual(copy(packet), expected);
    }),
    { numRuns: 500 },
  );
});

Deno.test("Segmenter.nextInPlace() makes the segments of next(), whose payload stays where it is", () => {
  const sizes = fc.oneof(fc.integer({ min: 8, max: 120 }), fc.constantFrom(1448, 9000));
  fc.assert(
    fc.property(shapes, sizes, fc.boolean(), (shape, segmentSize, skips) => {
      const packet = packetOf(poolOf(100, 4), { ...shape, segmentSize });
      const expected = slowlyCut(packet.data.slice(), segmentSize, true);
      const outside = packet.bytes.slice(packet.offset + packet.length, packet.slotEnd);
      const segmenter = new Segmenter();
      equal(segmenter.start(packet), undefined);
      const segments: Uint8Array[] = [];
      while (segmenter.remaining > 0) {
        const length = segmenter.nextLength;
        if (skips && segments.length % 3 === 0) segments.push(segmenter.nextCopy()!);
        else {
          const at = segmenter.nextInPlace();
          segments.push(packet.bytes.slice(at, at + length));
        }
        equal(segments.at(-1)!.length, length);
      }
      deepEqual(segments, expected);
      equal(segmenter.nextInPlace(), -1);
      deepEqual(packet.bytes.slice(packet.offset + packet.length, packet.slotEnd), outside);
    }),
    { numRuns: 300 },
  );
});

Deno.test("Segmenter.next() numbers IPv4 segments from the first id on, past 65,535 (RFC 6864 section 4.2)", () => {
  const packet = packetOf(poolOf(), { version: 4, protocol: TCP, size: 3000, segmentSize: 1000, id: 0xfffe });
  deepEqual(cutAll(packet).map((segment) => Ipv4.of(segment)!.id), [0xfffe, 0xffff, 0]);
});

Deno.test("Segmenter.next() wraps sequence numbers at 2^32", () => {
  const seq = 0xffffff00;
  const packet = packetOf(poolOf(), { version: 6, protocol: TCP, size: 2500, segmentSize: 1000, seq });
  deepEqual(cutAll(packet).map((segment) => Tcp.of(segment)!.seq), [seq, 744, 1744]);
});

Deno.test("Segmenter.next() puts FIN and PSH in the last segment only, and CWR in the first", () => {
  const flags = Tcp.Fin | Tcp.Psh | Tcp.Cwr | Tcp.Ece | Tcp.Ack;
  const packet = packetOf(poolOf(), { version: 4, protocol: TCP, size: 3000, segmentSize: 1000, flags });
  deepEqual(cutAll(packet).map((segment) => Tcp.of(segment)!.flags), [
    Tcp.Cwr | Tcp.Ece | Tcp.Ack,
    Tcp.Ece | Tcp.Ack,
    Tcp.Fin | Tcp.Psh | Tcp.Ece | Tcp.Ack,
  ]);
});

Deno.test("Segmenter.next() counts the urgent pointer from each segment's sequence number", () => {
  const flags = Tcp.Urg | Tcp.Ack;
  const packet = packetOf(poolOf(), {
    ...{ version: 4, protocol: TCP, size: 3000, segmentSize: 1000, flags, urgentPointer: 1500 },
  });
  const found = cutAll(packet).map((segment) => {
    const { isUrg, urgentPointer } = Tcp.of(segment)!;
    return [isUrg, urgentPointer];
  });
  deepEqual(found, [[true, 1500], [true, 500], [false, 0]]);
});

Deno.test("Segmenter.next() makes one segment of a payload that fits one, and of none", () => {
  for (const [size, segmentSize] of [[1000, 1000], [999, 1000], [0, 1000], [1, 65_535]] as const) {
    for (const protocol of [TCP, UDP] as const) {
      const packet = packetOf(poolOf(), { version: 4, protocol, size, segmentSize });
      const segments = cutAll(packet);
      equal(segments.length, 1);
      equal(wrongChecksum(segments[0]!.data), "");
      equal(segments[0]!.length, packet.length);
    }
  }
});

Deno.test("Segmenter.next() leaves a wrong checksum wrong, and UDP without one without", () => {
  for (const version of [4, 6] as const) {
    for (const protocol of [TCP, UDP] as const) {
      const wrong = packetOf(poolOf(), { version, protocol, size: 2500, segmentSize: 1000, sum: "wrong" });
      for (const segment of cutAll(wrong)) notEqual(wrongChecksum(segment.data), "");
    }
    const none = packetOf(poolOf(), { version, protocol: UDP, size: 2500, segmentSize: 1000, sum: "none" });
    const expected = slowlyCut(none.data, 1000, false);
    deepEqual(cutAll(none).map(({ data }) => data), expected);
  }
});

Deno.test("Segmenter.next() writes a UDP checksum of 0 as 0xffff", () => {
  const pool = poolOf();
  let found = 0;
  for (let word = 0; word < 0x10000; word++) {
    const packet = packetOf(pool, { version: 4, protocol: UDP, size: 8, segmentSize: 4 });
    packet.view.setUint16(packet.offset + 28, word);
    const [segment] = copy(packet);
    if (segment![26] === 0xff && segment![27] === 0xff) found++;
    notEqual(segment![26]! + segment![27]!, 0);
    pool.give(packet);
  }
  equal(found, 1);
});

Deno.test("Segmenter.next() completes a partial UDP checksum of 0, which does not mean none", () => {
  const packet = packetOf(poolOf(), { version: 4, protocol: UDP, size: 2500, segmentSize: 1000 });
  packet.view.setUint16(packet.offset + 26, 0);
  for (const segment of cutAll(packet)) notEqual(Udp.of(segment)!.checksum, 0);
});

Deno.test("Segmenter.next() removes padding after the IP packet", () => {
  const packet = packetOf(poolOf(), {
    ...{ version: 4, protocol: TCP, size: 2500, segmentSize: 1000, sum: "finished" },
  });
  const expected = slowlyCut(packet.data, 1000, true);
  packet.length += 9;
  deepEqual(cutAll(packet).map(({ data }) => data), expected);
});

Deno.test("Segmenter.next() gives each segment the super-packet's metadata and endpoint", () => {
  const packet = packetOf(poolOf(), { version: 6, protocol: UDP, size: 2500, segmentSize: 1000 });
  Object.assign(packet, { from: 3, to: 4, mark: 5, time: 6.5, hasEndpoint: true });
  packet.endpoint.forEach((_, i) => packet.endpoint[i] = i + 1);
  for (const segment of cutAll(packet)) {
    const { from, to, mark, time, malformed } = segment;
    deepEqual([from, to, mark, time, malformed], [3, 4, 5, 6.5, false]);
    equal(hex(segment.endpoint), hex(packet.endpoint));
    equal(segment.hasEndpoint, true);
  }
});

Deno.test("Segmenter.next() returns undefined while the pool is empty, and continues later", () => {
  fc.assert(
    fc.property(shapes, fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1 }), (shape, turns) => {
      const packet = packetOf(poolOf(), shape);
      const expected = slowlyCut(packet.data, shape.segmentSize, true);
      const size = expected[0]!.length;
      const pool = new PacketPool({ small: 5, large: size > 1700 ? 5 : 0 });
      const taken: Packet[] = [];
      const found: Uint8Array[] = [];
      const segmenter = new Segmenter();
      equal(segmenter.start(packet), undefined);
      for (let turn = 0; segmenter.remaining > 0; turn++) {
        const room = turns[turn % turns.length]!;
        const batch = new PacketBatch({ packets: room });
        while (segmenter.remaining > 0 && !batch.full) {
          const segment = segmenter.next(pool);
          if (segment === undefined) break;
          batch.push(segment);
        }
        for (const segment of batch) {
          found.push(segment.data.slice());
          taken.push(segment);
        }
        equal(found.length + segmenter.remaining, expected.length);
        if (turn % 2 === 0 && pool.available(size) > 0) continue;
        for (const segment of taken.splice(0)) pool.give(segment);
      }
      equal(segmenter.next(pool), undefined);
      deepEqual(found, expected);
    }),
    { numRuns: 200 },
  );
});

Deno.test("Segmenter.start() replaces a super-packet that is partly segmented", () => {
  const pool = poolOf();
  const segmenter = new Segmenter();
  segmenter.start(packetOf(pool, { version: 4, protocol: TCP, size: 5000, segmentSize: 1000 }));
  segmenter.next(pool);
  const second = packetOf(pool, { version: 6, protocol: UDP, size: 300, segmentSize: 200 });
  segmenter.start(second);
  equal(segmenter.remaining, 2);
  deepEqual(segmenter.nextCopy(), slowlyCut(second.data, 200, true)[0]);
});

Deno.test("Segmenter.start() returns the reason for an invalid super-packet, and marks it malformed", () => {
  const good: Shape = { version: 4, protocol: TCP, size: 3000, segmentSize: 1000 };
  const tcp = 20;
  const cases: [string, Partial<Shape>, (packet: Packet) => void][] = [
    [Unsegmentable.OutOfSlot, {}, (packet) => packet.offset = packet.slotEnd - 10],
    [Unsegmentable.OutOfSlot, {}, (packet) => packet.length = 0],
    [Unsegmentable.OutOfSlot, {}, (packet) => packet.offset += 0.5],
    [Unsegmentable.Malformed, {}, (packet) => packet.bytes[packet.offset] = 0x75],
    [Unsegmentable.Malformed, {}, (packet) => packet.length--],
    [Unsegmentable.Malformed, {}, (packet) => packet.length = 30],
    [Unsegmentable.Malformed, {}, (packet) => packet.bytes[packet.offset + tcp + 12] = 0x40],
    [Unsegmentable.Malformed, { protocol: UDP }, (packet) => packet.view.setUint16(packet.offset + 24, 2000)],
    [Unsegmentable.Malformed, { protocol: UDP }, (packet) => packet.view.setUint16(packet.offset + 24, 9000)],
    [Unsegmentable.Fragment, {}, (packet) => packet.bytes[packet.offset + 6] = 0x20],
    [Unsegmentable.Fragment, {}, (packet) => packet.bytes[packet.offset + 7] = 1],
    [
      Unsegmentable.Fragment,
      { version: 6, extensions: [44] },
      (packet) => packet.bytes[packet.offset + 43] = 1,
    ],
    [Unsegmentable.Protocol, {}, (packet) => packet.bytes[packet.offset + 9] = 1],
    [
      Unsegmentable.Protocol,
      { version: 6, extensions: [60] },
      (packet) => packet.bytes[packet.offset + 6] = 51,
    ],
    [Unsegmentable.SegmentSize, {}, (packet) => packet.segmentSize = 0],
    [Unsegmentable.SegmentSize, {}, (packet) => packet.segmentSize = -1],
    [Unsegmentable.SegmentSize, {}, (packet) => packet.segmentSize = 1.5],
    [Unsegmentable.SegmentSize, {}, (packet) => packet.segmentSize = NaN],
    [Unsegmentable.SegmentSize, {}, (packet) => packet.segmentSize = 65_536],
    [Unsegmentable.SegmentSize, { size: 8193 }, (packet) => packet.segmentSize = 1],
    [Unsegmentable.Flags, { flags: Tcp.Syn | Tcp.Ack }, () => {}],
    [Unsegmentable.Flags, { flags: Tcp.Rst | Tcp.Ack }, () => {}],
    [Unsegmentable.Checksum, {}, (packet) => packet.checksumStart += 8],
    [Unsegmentable.Checksum, {}, (packet) => packet.checksumOffset = 6],
  ];
  for (const [reason, changes, spoil] of cases) {
    const pool = poolOf();
    const packet = packetOf(pool, { ...good, ...changes });
    spoil(packet);
    const segmenter = new Segmenter();
    equal(segmenter.start(packet), reason);
    deepEqual(
      [segmenter.remaining, segmenter.next(pool), segmenter.nextCopy()],
      [0, undefined, undefined],
      reason,
    );
    equal(packet.malformed, true);
    if (packet.segmentSize !== 0) deepEqual(copy(packet), []);
  }
});

Deno.test("Segmenter.start() accepts at most 8192 segments in 65,535 bytes", () => {
  const pool = poolOf(9000, 2);
  const packet = packetOf(pool, { version: 4, protocol: TCP, size: 65_495, segmentSize: 8 });
  equal(packet.length, LARGE_ROOM);
  const segments = copy(packet);
  equal(segments.length, 8187);
  for (const segment of [segments[0]!, segments[8186]!]) equal(wrongChecksum(segment), "");
  packet.segmentSize = 7;
  equal(new Segmenter().start(packet), Unsegmentable.SegmentSize);
});

Deno.test("copy() returns a super-packet's segments with complete checksums", () => {
  const packet = packetOf(poolOf(), { version: 6, protocol: TCP, size: 3000, segmentSize: 1448 });
  const copies = copy(packet);
  deepEqual(copies.map(({ length }) => length), [1508, 1508, 164]);
  for (const bytes of copies) equal(wrongChecksum(bytes), "");
  copies[0]!.fill(0);
  equal(wrongChecksum(copy(packet)[0]!), "");
});

Deno.test("Packet.finish() completes the checksum in the slot, as copy() does in the copy", () => {
  fc.assert(fc.property(shapes, (shape) => {
    const packet = packetOf(poolOf(), { ...shape, size: shape.size % 1500, segmentSize: 0, sum: "partial" });
    const [expected] = copy(packet);
    packet.finish();
    deepEqual([packet.checksumStart, packet.checksumOffset], [0, 0]);
    deepEqual(packet.data, expected);
    equal(wrongChecksum(packet.data), "");
    packet.finish();
    deepEqual(packet.data, expected);
  }));
});

Deno.test("Packet.finish() writes a UDP checksum of 0 as 0xffff", () => {
  const pool = poolOf();
  const sumOf = (word: number): number => {
    const packet = packetOf(pool, { version: 4, protocol: UDP, size: 2, segmentSize: 0 });
    packet.view.setUint16(packet.offset + 28, word);
    packet.finish();
    pool.give(packet);
    return packet.view.getUint16(packet.offset + 26);
  };
  equal(sumOf(sumOf(0)), 0xffff);
});

Deno.test("Packet.finish() does not write a field outside the packet", () => {
  for (const [start, offset] of [[30, 0], [29, 0], [1, 28], [-1, 4], [4, -1], [NaN, 2], [2, NaN], [1e9, 0]]) {
    const packet = poolOf().from(new Uint8Array(30))!;
    if (start === 29) packet.length = 30;
    Object.assign(packet, { checksumStart: start, checksumOffset: offset });
    packet.finish();
    deepEqual(packet.data, new Uint8Array(30));
    equal(packet.bytes[packet.offset + 30], FILL);
  }
});

/** Returns the packet that a device hands to the system for a group: its pieces, joined. */
function written(group: SegmentGroup): Packet {
  const pool = poolOf(1, 1);
  const pieces = [group.packets[0]!.data];
  for (let i = 1; i < group.length; i++) pieces.push(group.packets[i]!.data.subarray(group.headerLength));
  const packet = pool.take(group.bytes)!;
  let at = packet.offset;
  for (const piece of pieces) {
    packet.bytes.set(piece, at);
    at += piece.length;
  }
  equal(at, packet.offset + group.bytes);
  const { segmentSize, checksumStart, checksumOffset } = group.packets[0]!;
  return Object.assign(packet, { segmentSize, checksumStart, checksumOffset });
}

function batchOf(packets: readonly Packet[]): PacketBatch {
  const batch = new PacketBatch({ packets: 4096, bytes: 1 << 30 });
  for (const packet of packets) batch.push(packet);
  return batch;
}

/** The groups of packets, each as the packets' places in the batch. */
function grouping(
  packets: readonly Packet[],
  coalescer: Coalescer = new Coalescer({ udp: true }),
): number[][] {
  const count = coalescer.group(batchOf(packets));
  return coalescer.groups.slice(0, count).map((group) =>
    group.packets.slice(0, group.length).map((packet) => packets.indexOf(packet))
  );
}

/** Segments of one flow, all in one pool. */
function segmentsOf(pool: PacketPool, shape: Partial<Shape> = {}): Packet[] {
  const whole = { version: 4, protocol: TCP, size: 3500, segmentSize: 1000, ...shape } as const;
  const packet = packetOf(pool, whole);
  const segments = cutAll(packet, pool);
  pool.give(packet);
  return segments;
}

Deno.test("Coalescer.group() restores a super-packet from its segments", () => {
  const coalescer = new Coalescer({ udp: true });
  const plain = shapes.filter(({ flags, protocol }) =>
    protocol === UDP || flags === Tcp.Ack || flags === (Tcp.Ack | Tcp.Psh)
  );
  fc.assert(
    fc.property(plain, (shape) => {
      const pool = poolOf(200, 10);
      const whole: Shape = { ...shape, ipOptions: 0, extensions: [], urgentPointer: 0, sum: "partial" };
      if (whole.size === 0) whole.size = 1;
      const packet = packetOf(pool, whole);
      const segments = cutAll(packet, pool);
      fc.pre(segments.length <= 64);
      const before = segments.map(({ data }) => data.slice());
      equal(coalescer.group(batchOf(segments)), 1);
      const group = coalescer.groups[0]!;
      deepEqual([group.length, group.bytes], [segments.length, packet.length]);
      if (segments.length === 1) return;
      group.seal();
      group.seal();
      const joined = written(group);
      deepEqual(joined.data, packet.data);
      deepEqual(
        [joined.segmentSize, joined.checksumStart, joined.checksumOffset],
        [packet.segmentSize, packet.checksumStart, packet.checksumOffset],
      );
      deepEqual(copy(joined), before);
      group.unseal();
      group.unseal();
      deepEqual(segments.map(({ data }) => data), before);
      deepEqual([segments[0]!.segmentSize, segments[0]!.checksumStart, segments[0]!.checksumOffset], [
        0,
        0,
        0,
      ]);
    }),
    { numRuns: 500 },
  );
});

Deno.test("Coalescer.group() accepts partial checksums, and SegmentGroup.unseal() restores them", () => {
  const pool = poolOf();
  for (const protocol of [TCP, UDP] as const) {
    const packets = [1000, 2000, 3000].map((seq) =>
      packetOf(pool, { version: 4, protocol, size: 1000, segmentSize: 0, seq, dontFragment: true })
    );
    const before = packets.map(({ data }) => data.slice());
    deepEqual(grouping(packets), [[0, 1, 2]]);
    const coalescer = new Coalescer({ udp: true });
    coalescer.group(batchOf(packets));
    coalescer.groups[0]!.seal();
    for (const bytes of copy(written(coalescer.groups[0]!))) equal(wrongChecksum(bytes), "");
    coalescer.groups[0]!.unseal();
    deepEqual(packets.map(({ data }) => data), before);
    const { segmentSize, checksumStart, checksumOffset } = packets[0]!;
    deepEqual([segmentSize, checksumStart, checksumOffset], [0, 20, protocol === TCP ? 16 : 6]);
  }
});

Deno.test("Coalescer.group() joins the segments of interleaved flows, in each flow's order", () => {
  for (const protocol of [TCP, UDP] as const) {
    for (const version of [4, 6] as const) {
      const pool = poolOf(256, 4);
      const flows = [1, 2, 3, 4, 5].map((port) => segmentsOf(pool, { protocol, version, port }));
      const random = new Random(port(protocol, version));
      const packets: Packet[] = [];
      while (flows.some(({ length }) => length > 0)) {
        const flow = flows[random.below(flows.length)]!;
        if (flow.length > 0) packets.push(flow.shift()!);
      }
      const groups = grouping(packets);
      equal(groups.length, 5);
      for (const group of groups) {
        equal(group.length, 4);
        deepEqual(group, group.toSorted((a, b) => a - b));
      }
      const firsts = groups.map((group) => group[0]!);
      deepEqual(firsts, firsts.toSorted((a, b) => a - b));
    }
  }
});

function port(protocol: number, version: number): number {
  return protocol * 10 + version;
}

Deno.test("Coalescer.group() keeps the order of a flow, and every packet once, whatever comes", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 9 })), { maxLength: 60 }),
      (steps) => {
        const pool = poolOf(300, 4);
        const seqs = [1, 1, 1];
        const packets = steps.map(([flow, kind]) => {
          const size = kind === 0 ? 0 : kind === 1 ? 50 : 100;
          const flags = kind === 2 ? Tcp.Ack | Tcp.Psh : kind === 3 ? Tcp.Ack | Tcp.Fin : Tcp.Ack;
          const seq = seqs[flow!]!;
          if (kind !== 4) seqs[flow!]! += size; // 4: sent again
          const packet = packetOf(pool, {
            ...{
              version: 4,
              protocol: TCP,
              size,
              segmentSize: 0,
              flags,
              seq,
              port: flow,
              dontFragment: true,
            },
            ...{ ipOptions: kind === 5 ? 1 : 0, sum: kind === 6 ? "wrong" : "finished" },
          });
          return packet;
        });
        const order = grouping(packets).flat();
        deepEqual(order.toSorted((a, b) => a - b), packets.map((_, i) => i));
        for (const flow of [0, 1, 2]) {
          const own = order.filter((i) => steps[i]![0] === flow);
          deepEqual(own, own.toSorted((a, b) => a - b));
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("Coalescer.group() does not group a packet that differs where segments would not", () => {
  const changes: [string, Partial<Shape>, (packet: Packet) => void][] = [
    ["service", {}, (packet) => Ipv4.of(packet)!.ecn = 3],
    ["ttl", {}, (packet) => Ipv4.of(packet)!.ttl--],
    ["don't fragment", {}, (packet) => Ipv4.of(packet)!.dontFragment = true],
    ["id", {}, (packet) => Ipv4.of(packet)!.id = 9],
    ["fragment", {}, (packet) => Ipv4.of(packet)!.moreFragments = true],
    ["IPv4 checksum", {}, (packet) => packet.bytes[packet.offset + 10]! ^= 1],
    ["traffic class", { version: 6 }, (packet) => Ipv6.of(packet)!.ecn = 3],
    ["hop limit", { version: 6 }, (packet) => Ipv6.of(packet)!.hopLimit--],
    ["flow label", { version: 6 }, (packet) => Ipv6.of(packet)!.flowLabel = 1],
    ["source address", { version: 6 }, (packet) => Ipv6.of(packet)!.src = IPV6_DST],
    ["port", {}, (packet) => Tcp.of(packet)!.dstPort = 9],
    ["sequence", {}, (packet) => Tcp.of(packet)!.seq++],
    ["acknowledgment", {}, (packet) => Tcp.of(packet)!.ack++],
    ["window", {}, (packet) => Tcp.of(packet)!.window--],
    ["urgent pointer", {}, (packet) => Tcp.of(packet)!.urgentPointer++],
    ["FIN", {}, (packet) => Tcp.of(packet)!.flags |= Tcp.Fin],
    ["CWR", {}, (packet) => Tcp.of(packet)!.flags |= Tcp.Cwr],
    ["ECE", {}, (packet) => Tcp.of(packet)!.flags |= Tcp.Ece],
    ["no ACK", {}, (packet) => Tcp.of(packet)!.flags = 0],
    ["options", { tcpOptions: Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2) }, (packet) => {
      Tcp.of(packet)!.tsval!++;
    }],
    ["checksum", {}, (packet) => packet.bytes[packet.offset + packet.length - 1]! ^= 1],
    ["padding", {}, (packet) => packet.length++],
    ["peer", {}, (packet) => packet.to = 1],
    ["reserved bits", {}, (packet) => {
      packet.bytes[packet.offset + 32]! |= 1;
      Tcp.of(packet)!.refreshChecksum();
    }],
    ["another field", {}, (packet) => Object.assign(packet, { checksumStart: 20, checksumOffset: 6 })],
    ["another sum", {}, (packet) => Object.assign(packet, { checksumStart: 28, checksumOffset: 6 })],
    ["super-packet", {}, (packet) => packet.segmentSize = 500],
    ["cut short", {}, (packet) => packet.length = 30],
    ["no payload", {}, (packet) => {
      packet.length = 40;
      packet.bytes.set([0, 40], packet.offset + 2);
      const header = packet.data.subarray(0, 20);
      writeSum(header, 10, header);
    }],
    ["UDP without a sum", { protocol: UDP }, (packet) => packet.view.setUint16(packet.offset + 26, 0)],
    ["UDP length", { protocol: UDP }, (packet) => packet.view.setUint16(packet.offset + 24, 999)],
    ["UDP sum", { protocol: UDP }, (packet) => packet.bytes[packet.offset + 27]! ^= 1],
  ];
  for (const [what, shape, change] of changes) {
    const pool = poolOf();
    const whole = { ...shape, size: 4000, flags: Tcp.Ack };
    // Before: four segments are one group.
    deepEqual(grouping(segmentsOf(pool, whole)), [[0, 1, 2, 3]], what);
    for (const at of [0, 1, 2]) {
      const packets = segmentsOf(pool, whole);
      change(packets[at]!);
      const before = packets[at]!.data.slice();
      const groups = grouping(packets);
      for (const group of groups) equal(group.length === 1 || !group.includes(at), true, `${what} ${at}`);
      deepEqual(packets[at]!.data, before);
      for (const packet of packets) pool.give(packet);
    }
  }
});

Deno.test("Coalescer.group() does not group packets whose headers are wrong in the same way", () => {
  const lies: [string, Partial<Shape>, (packet: Packet, place: number) => void][] = [
    ["reserved bits", {}, (packet) => packet.bytes[packet.offset + 32]! |= 1],
    ["TCP header shorter than 20 bytes", {}, (packet, place) => {
      packet.bytes[packet.offset + 32] = 0x40;
      packet.view.setUint32(packet.offset + 24, 1004 * place);
    }],
    ["TCP header longer than the packet", { size: 10, segmentSize: 5 }, (packet, place) => {
      packet.bytes[packet.offset + 32] = 0xf0;
      packet.view.setUint32(packet.offset + 24, -35 * place);
      packet.bytes.fill(0, packet.offset + 40, packet.offset + 100);
    }],
    ["UDP header cut short", { protocol: UDP }, (packet) => {
      packet.length = 24;
      packet.bytes.set([0, 24], packet.offset + 2);
      packet.bytes.set([0, 4], packet.offset + 24);
      const header = packet.data.subarray(0, 20);
      writeSum(header, 10, header);
    }],
  ];
  for (const [what, shape, lie] of lies) {
    const packets = segmentsOf(poolOf(), { size: 2000, ...shape });
    for (const packet of packets) {
      // A sum that is still to be finished is not what keeps them apart.
      Object.assign(packet, { checksumStart: 20, checksumOffset: shape.protocol === UDP ? 6 : 16 });
      Ipv4.of(packet)!.id = 0;
      Ipv4.of(packet)!.dontFragment = true;
      lie(packet, packets.indexOf(packet));
    }
    deepEqual(grouping(packets), [[0], [1]], what);
  }
});

Deno.test("Coalescer.group() does not group a packet outside its slot, or of another pool", () => {
  const pool = poolOf();
  const [first, second] = segmentsOf(pool, { size: 2000 });
  const { offset, length } = second!;
  deepEqual(grouping([first!, Object.assign(pool.take(0)!, { offset, length })]), [[0], [1]]);
  const pools = [poolOf(), poolOf()].map((pool) => segmentsOf(pool, { size: 3000 }));
  deepEqual(grouping([pools[0]![0]!, pools[1]![1]!, pools[1]![2]!]), [[0], [1, 2]]);
});

Deno.test("Coalescer.group() separates TCP and UDP flows between the same ports", () => {
  const pool = poolOf();
  const [a, b] = segmentsOf(pool, { size: 2000 });
  const [c, d] = segmentsOf(pool, { size: 2000, protocol: UDP });
  deepEqual(grouping([a!, c!, b!, d!]), [[0, 2], [1, 3]]);
});

Deno.test("SegmentGroup.seal() works again after a group that was written and not unsealed", () => {
  const coalescer = new Coalescer();
  for (let round = 0; round < 3; round++) {
    const pool = poolOf();
    const whole = packetOf(pool, { version: 4, protocol: TCP, size: 3000, segmentSize: 1000, port: round });
    equal(coalescer.group(batchOf(cutAll(whole, pool))), 1);
    coalescer.groups[0]!.seal();
    deepEqual(written(coalescer.groups[0]!).data, whole.data);
  }
});

Deno.test('Coalescer.group() accepts any IPv4 id with "don\'t fragment" (RFC 6864 section 4.1)', () => {
  const packets = segmentsOf(poolOf(), { dontFragment: true });
  for (const packet of packets) Ipv4.of(packet)!.id = 0;
  deepEqual(grouping(packets), [[0, 1, 2, 3]]);
});

Deno.test("Coalescer.group() ends a group after PSH, a shorter segment, and before a longer one", () => {
  const pool = poolOf();
  const tcp = (seq: number, size: number, flags: number = Tcp.Ack): Packet =>
    packetOf(pool, {
      ...{ version: 4, protocol: TCP, size, segmentSize: 0, seq, flags, dontFragment: true },
      sum: "finished",
    });
  const push = Tcp.Ack | Tcp.Psh;
  deepEqual(grouping([tcp(0, 100), tcp(100, 100, push), tcp(200, 100), tcp(300, 100)]), [[0, 1], [2, 3]]);
  deepEqual(grouping([tcp(0, 100, push), tcp(100, 100), tcp(200, 100)]), [[0], [1, 2]]);
  deepEqual(grouping([tcp(0, 100), tcp(100, 50), tcp(150, 50), tcp(200, 50)]), [[0, 1], [2, 3]]);
  deepEqual(grouping([tcp(0, 100), tcp(100, 101), tcp(201, 101)]), [[0], [1, 2]]);
  const coalescer = new Coalescer();
  coalescer.group(batchOf([tcp(0, 100), tcp(100, 100, push)]));
  coalescer.groups[0]!.seal();
  equal(Tcp.of(written(coalescer.groups[0]!))!.isPsh, true);
});

Deno.test("Coalescer.group() ends every group at a packet of unknown flow", () => {
  const pool = poolOf();
  const hidden: ((packet: Packet) => Packet)[] = [
    (packet) => (Ipv4.of(packet)!.fragmentOffset = 8, packet),
    (packet) => (addIpv4Options(packet, 1), packet),
    () => packetOf(pool, { version: 6, protocol: TCP, size: 10, segmentSize: 0, extensions: [60] }),
    () => pool.from(Uint8Array.of(0x45))!,
    () => Object.assign(pool.take(1)!, { length: 0 }),
  ];
  for (const hide of hidden) {
    const [a, b, c, d] = segmentsOf(pool, { size: 4000 });
    const other = hide(segmentsOf(pool, { size: 1000 })[0]!);
    deepEqual(grouping([a!, b!, other, c!, d!]), [[0, 1], [2], [3, 4]]);
  }
  // Another protocol is another flow.
  const [a, b, c] = segmentsOf(pool, { size: 3000 });
  const ping = pool.from(Uint8Array.of(8, 0, 0, 0))!;
  Ipv4.encode(ping, { src: IPV4_SRC, dst: IPV4_DST, protocol: 1 });
  deepEqual(grouping([a!, ping, b!, c!]), [[0, 2, 3], [1]]);
});

Deno.test("Coalescer.group() groups datagrams only with the option udp", () => {
  const packets = segmentsOf(poolOf(), { protocol: UDP });
  deepEqual(grouping(packets, new Coalescer()), [[0], [1], [2], [3]]);
  deepEqual(grouping(packets, new Coalescer({ udp: true })), [[0, 1, 2, 3]]);
});

Deno.test("Coalescer.group() makes groups of at most 65,535 bytes", () => {
  for (const version of [4, 6] as const) {
    const pool = poolOf(256, 2);
    const headers = version === 4 ? 40 : 60;
    const room = 65_535 - headers;
    const size = 1448;
    const whole = Math.floor(room / size);
    const sizes = [...new Array<number>(whole).fill(size), room - whole * size];
    let seq = 0;
    const packets = sizes.map((size) => {
      const packet = packetOf(pool, {
        version,
        protocol: TCP,
        size,
        segmentSize: 0,
        seq,
        dontFragment: true,
      });
      seq += size;
      return packet;
    });
    const coalescer = new Coalescer();
    equal(coalescer.group(batchOf(packets)), 1);
    equal(coalescer.groups[0]!.bytes, 65_535);
    coalescer.groups[0]!.seal();
    equal(copy(written(coalescer.groups[0]!)).length, whole + 1);
    coalescer.groups[0]!.unseal();
    // One byte more is another group.
    packets[whole] = packetOf(pool, {
      ...{ version, protocol: TCP, size: sizes[whole]! + 1, segmentSize: 0, dontFragment: true },
      seq: seq - sizes[whole]!,
    });
    equal(coalescer.group(batchOf(packets)), 2);
  }
});

Deno.test("Coalescer.group() makes groups of at most 64 packets", () => {
  const packets = segmentsOf(poolOf(), { size: 10_000, segmentSize: 100 });
  deepEqual(grouping(packets).map(({ length }) => length), [64, 36]);
});

Deno.test("Coalescer.group() takes batches of every length and of a thousand flows", () => {
  const pool = poolOf(3000, 1);
  const packets: Packet[] = [];
  for (const seq of [0, 100]) {
    for (let port = 0; port < 1000; port++) {
      const shape = { version: 4, protocol: TCP, size: 100, segmentSize: 0, seq, port } as const;
      packets.push(packetOf(pool, { ...shape, dontFragment: true }));
    }
  }
  const coalescer = new Coalescer();
  deepEqual(grouping([], coalescer), []);
  const groups = grouping(packets, coalescer);
  const pairs = groups.filter(({ length }) => length === 2).length;
  equal(pairs >= 990, true, `${pairs}`);
  for (const group of groups) if (group.length === 2) equal(group[1], group[0]! + 1000);
  deepEqual(grouping(packets.slice(0, 1), coalescer), [[0]]);
});

Deno.test("Segmenter and Coalescer never throw on any bytes, and write only in their slots", () => {
  const random = new Random(0x5e9);
  const segmenter = new Segmenter();
  const coalescer = new Coalescer({ udp: true });
  let cut = 0;
  let joined = 0;
  for (let round = 0; round < 3000; round++) {
    const pool = new PacketPool({ small: 24, large: 1 });
    const packets: Packet[] = [];
    const version = random.below(2) === 0 ? 4 : 6;
    const protocol = random.below(2) === 0 ? TCP : UDP;
    const isSuper = random.below(2);
    for (let i = 0; i < 6; i++) {
      const extensions = random.below(8) === 0 ? [[43, 44, 60][random.below(3)]!] : [];
      const sum = (["partial", "finished", "none", "wrong"] as const)[random.below(8) % 5 % 4]!;
      const packet = packetOf(pool, {
        ...{ version, protocol, size: 200, segmentSize: isSuper * (1 + random.below(100)) },
        ...{ seq: 200 * i, extensions, dontFragment: true, sum },
      });
      for (let count = random.below(4) - 1; count > 0; count--) {
        packet.bytes[packet.offset + random.below(random.below(2) === 0 ? 8 : 80)] = random.below(256);
      }
      if (random.below(8) === 0) packet.length = random.below(packet.length);
      if (random.below(16) === 0) packet.checksumStart = random.below(300) - 20;
      if (random.below(16) === 0) packet.checksumOffset = random.below(300) - 20;
      if (random.below(16) === 0) packet.segmentSize = [NaN, -1, 0.5, Infinity][random.below(4)]!;
      if (random.below(64) === 0) packet.offset = packet.slotStart + random.below(2 * HEADROOM) - HEADROOM;
      packets.push(packet);
    }
    const before = pool.bytes.slice();
    const count = coalescer.group(batchOf(packets));
    deepEqual(pool.bytes, before);
    for (let i = 0; i < count; i++) {
      const group = coalescer.groups[i]!;
      group.seal();
      if (group.length > 1) {
        joined++;
        for (const bytes of copy(written(group))) equal(wrongChecksum(bytes), "");
      }
      group.unseal();
    }
    deepEqual(pool.bytes, before);
    for (const packet of packets) {
      if (packet.segmentSize === 0 || segmenter.start(packet) !== undefined) continue;
      cut++;
      while (segmenter.remaining > 0) {
        const segment = segmenter.next(pool)!;
        equal(segment.length <= packet.length, true);
        pool.give(segment);
      }
    }
    for (const packet of packets) packet.finish();
  }
  equal(cut > 1000 && joined > 200, true, `${cut} cut, ${joined} joined`);
});
