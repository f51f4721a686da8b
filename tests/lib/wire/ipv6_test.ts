/** Tests of `Ipv6` and extension headers: reading, writing and changing headers, and rejecting malformed ones. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { writeTransport } from "../../../lib/wire/_encode.ts";
import { parseIpv6 } from "../../../lib/wire/address.ts";
import { type Packet, PacketPool } from "../../../lib/core/mod.ts";
import { Protocol, transport } from "../../../lib/wire/ip.ts";
import { Ipv6, type Ipv6Fields } from "../../../lib/wire/ipv6.ts";
import { copy } from "../../../lib/split/copy.ts";
import { plainSum, readAll, refill } from "../../kit/packets.ts";

const SEED = { seed: 8200, numRuns: 1000 };
const CHECKSUM_FIELDS = new Map<number, number>([[6, 16], [17, 6], [33, 6], [136, 6], [58, 2]]);

const pool = new PacketPool({ small: 1, large: 1 });

/** A packet of these bytes, in memory that is 0xa5 elsewhere. */
function packetOf(bytes: Uint8Array | number[], slot = 0): Packet {
  return refill(pool.packets[slot]!, bytes);
}

/** A header, 40 bytes, in front of a payload, written here rather than by the code that is tested. */
function headed(nextHeader: number, payload: Uint8Array | number[]): Uint8Array {
  const { length } = payload;
  return Uint8Array.from([
    ...[0x60, 0, 0, 0, length >> 8, length & 255, nextHeader, 64],
    ...parseIpv6("2001:db8::1"),
    ...parseIpv6("2001:db8::2"),
    ...payload,
  ]);
}

/** The pseudo-header of RFC 8200 section 8.1. */
function pseudoHeader(data: Uint8Array, protocol: number, start = 40, dst = 24): number[] {
  const length = data.length - start;
  const end = [0, 0, length >> 8, length & 255, 0, 0, 0, protocol];
  return [...data.subarray(8, 24), ...data.subarray(dst, dst + 16), ...end];
}

/** Asserts that the transport checksum of a whole packet is right. */
function assertRightSum(data: Uint8Array, protocol: number, start = 40, dst = 24): void {
  assert.equal(plainSum([...pseudoHeader(data, protocol, start, dst), ...data.subarray(start)]), 0xffff);
}

const anyAddress = fc.oneof(
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
  fc.constantFrom(new Uint8Array(16), new Uint8Array(16).fill(255)),
);
const anyFields: fc.Arbitrary<Required<Ipv6Fields>> = fc.record({
  src: anyAddress,
  dst: anyAddress,
  nextHeader: fc.constantFrom(6, 17, 58, 33, 136, 1, 59),
  hopLimit: fc.nat(255),
  trafficClass: fc.nat(255),
  flowLabel: fc.nat(0xfffff),
});
/** Up to 60 bytes, with a UDP length field that covers all of them. */
const anyPayload = fc.uint8Array({ maxLength: 60 }).map((bytes) => {
  if (bytes.length >= 6) new DataView(bytes.buffer, bytes.byteOffset).setUint16(4, bytes.length);
  return bytes;
});

const SETTERS = ["src", "dst", "hopLimit", "ttl", "trafficClass", "flowLabel", "dscp", "ecn"] as const;
type Change = [name: (typeof SETTERS)[number] | "swap", value: number, address: Uint8Array];
const anyChanges: fc.Arbitrary<Change[]> = fc.array(
  fc.tuple(fc.constantFrom(...SETTERS, "swap" as const), fc.integer(), anyAddress),
  { maxLength: 12 },
);

function change(ip: Ipv6, [name, value, address]: Change): void {
  if (name === "swap") ip.swap();
  else if (name === "src" || name === "dst") ip[name] = address;
  else ip[name] = value;
}

/** An extension header of the given type: its bytes name what follows it. */
interface Extension {
  type: number;
  bytes: Uint8Array;
}

function options(type: number, units = 0): Extension {
  const bytes = new Uint8Array((units + 1) * 8);
  bytes[1] = units;
  bytes[2] = 1; // PadN (RFC 8200 section 4.2)
  bytes[3] = bytes.length - 4;
  return { type, bytes };
}

function fragment(offset: number, more: boolean): Extension {
  return {
    type: 44,
    bytes: Uint8Array.of(0, 0xff, offset >> 8, offset & 0xf8 | Number(more), 0xde, 0xad, 0xbe, 0xef),
  };
}

function routing(routingType: number, segmentsLeft: number, ...addresses: Uint8Array[]): Extension {
  const head = [0, addresses.length * 2, routingType, segmentsLeft, 0, 0, 0, 0];
  return { type: 43, bytes: Uint8Array.from([...head, ...addresses.flatMap((address) => [...address])]) };
}

function authentication(units: number): Extension {
  const bytes = new Uint8Array((units + 2) * 4);
  bytes[1] = units;
  return { type: 51, bytes };
}

/** Extension headers in their order, each naming the next, in front of an upper layer. */
function chain(
  extensions: readonly Extension[],
  protocol: number,
  payload: Uint8Array | number[],
): Uint8Array {
  const types = [...extensions.map(({ type }) => type), protocol];
  const headers = extensions.map(({ bytes }, i) => bytes.with(0, types[i + 1]!));
  return headed(types[0]!, [...headers.flatMap((bytes) => [...bytes]), ...payload]);
}

Deno.test("Ipv6.of() reads every field of a header", () => {
  const bytes = headed(17, new Uint8Array(9));
  bytes.set([0x6b, 0x9a, 0xbc, 0xde], 0);
  const packet = packetOf(bytes);
  const ip = Ipv6.of(packet)!;
  assert.equal(ip.version, 6);
  assert.equal(ip.start, packet.offset);
  assert.equal(ip.trafficClass, 0xb9);
  assert.equal(ip.dscp, 46);
  assert.equal(ip.ecn, 1);
  assert.equal(ip.flowLabel, 0xabcde);
  assert.equal(ip.totalLength, 49);
  assert.equal(ip.headerLength, 40);
  assert.equal(ip.nextHeader, Protocol.Udp);
  assert.equal(ip.protocol, Protocol.Udp);
  assert.equal(ip.hopLimit, 64);
  assert.equal(ip.ttl, 64);
  assert.deepEqual(ip.src, parseIpv6("2001:db8::1"));
  assert.deepEqual(ip.dst, parseIpv6("2001:db8::2"));
  assert.equal(ip.srcText, "2001:db8::1");
  assert.equal(ip.dstText, "2001:db8::2");
  assert.equal(ip.payloadOffset, packet.offset + 40);
  assert.equal(ip.payloadLength, 9);
  assert.deepEqual([ip.isFragment, ip.fragmentOffset, ip.moreFragments], [false, 0, false]);
  assert.equal(packet.malformed, false);
});

Deno.test("Ipv6.of() excludes padding after the payload length from the payload", () => {
  const packet = packetOf([...headed(17, new Uint8Array(9)), 1, 2, 3]);
  assert.equal(Ipv6.of(packet)!.payloadLength, 9);
  assert.equal(Ipv6.of(packet)!.totalLength, 49);
});

Deno.test("Ipv6.of() returns the packet's own view each time", () => {
  const packet = packetOf(headed(59, []));
  assert(Ipv6.of(packet) === Ipv6.of(packet));
});

Deno.test("Ipv6.of() walks every kind of extension header to the upper layer", () => {
  const extensions = [
    options(0, 1),
    options(60),
    routing(4, 0, new Uint8Array(16)),
    authentication(4),
    options(60, 2),
  ];
  const packet = packetOf(chain(extensions, 6, new Uint8Array(20)));
  const ip = Ipv6.of(packet)!;
  const length = 16 + 8 + 24 + 24 + 24;
  assert.equal(ip.nextHeader, Protocol.HopByHop);
  assert.equal(ip.protocol, Protocol.Tcp);
  assert.equal(ip.headerLength, 40 + length);
  assert.equal(ip.payloadOffset, packet.offset + 40 + length);
  assert.equal(ip.payloadLength, 20);
  assert.equal(ip.extension(Protocol.HopByHop), packet.offset + 40);
  assert.equal(ip.extension(Protocol.DestinationOptions), packet.offset + 56);
  assert.equal(ip.extension(Protocol.Routing), packet.offset + 64);
  assert.equal(ip.extension(Protocol.Ah), packet.offset + 88);
  assert.equal(ip.extension(Protocol.Fragment), -1);
  assert.equal(ip.extension(Protocol.Tcp), -1);
  assert(transport(packet, Protocol.Tcp) === ip);
});

Deno.test("Ipv6.of() takes ESP, no next header and unknown numbers as the upper layer", () => {
  for (const type of [50, 59, 135, 139, 200, 255]) {
    const packet = packetOf(chain([options(60)], type, [0xff, 0xff]));
    assert.equal(Ipv6.of(packet)!.protocol, type);
    assert.equal(Ipv6.of(packet)!.payloadLength, 2);
  }
});

Deno.test("Ipv6.of() stops at the Fragment header of a later fragment", () => {
  const packet = packetOf(chain([options(0), fragment(1448, true)], 60, new Uint8Array(16).fill(0xff)));
  const ip = Ipv6.of(packet)!;
  assert.equal(ip.protocol, Protocol.DestinationOptions);
  assert.equal(ip.payloadOffset, packet.offset + 56);
  assert.equal(ip.payloadLength, 16);
  assert.deepEqual([ip.isFragment, ip.fragmentOffset, ip.moreFragments], [true, 1448, true]);
  assert.equal(ip.extension(Protocol.Fragment), packet.offset + 48);
  const later = packetOf(chain([fragment(8, false)], 17, new Uint8Array(16)));
  assert.equal(Ipv6.of(later)!.isFragment, true);
  assert(transport(later, Protocol.Udp) === undefined);
});

Deno.test("Ipv6.of() walks on in the first fragment, and takes an atomic fragment as a whole packet", () => {
  const first = packetOf(chain([fragment(0, true), options(60)], 17, new Uint8Array(16)));
  assert.equal(Ipv6.of(first)!.protocol, Protocol.Udp);
  assert.equal(Ipv6.of(first)!.isFragment, true);
  assert(transport(first, Protocol.Udp) === Ipv6.of(first));
  const atomic = packetOf(chain([fragment(0, false)], 17, new Uint8Array(16))); // RFC 6946
  assert.equal(Ipv6.of(atomic)!.isFragment, false);
});

Deno.test("Ipv6.of() returns undefined for another version without a mark", () => {
  for (const first of [0x00, 0x45, 0x5f, 0x70]) {
    const packet = packetOf([first, ...new Uint8Array(39)]);
    assert(Ipv6.of(packet) === undefined);
    assert.equal(packet.malformed, false);
  }
});

Deno.test("Ipv6.of() returns undefined and marks a truncated or misplaced header", () => {
  const broken: [string, Uint8Array][] = [
    ["empty", new Uint8Array()],
    ["39 bytes", headed(59, []).subarray(0, 39)],
    ["payload beyond the packet", headed(59, [1, 2]).subarray(0, 41)],
    ["extension header missing", headed(60, [])],
    ["extension header of 7 bytes", headed(60, new Uint8Array(7))],
    ["extension header beyond the payload", headed(60, [17, 1, 0, 0, 0, 0, 0, 0])],
    ["Fragment header of 7 bytes", headed(44, new Uint8Array(7))],
    ["second extension header missing", chain([options(60)], 43, [])],
    ["Authentication header beyond the payload", headed(51, [17, 4, ...new Uint8Array(21)])],
    ["Hop-by-Hop Options not in front", chain([options(60), options(0)], 17, new Uint8Array(8))],
    ["17 extension headers", chain(Array.from({ length: 17 }, () => options(60)), 17, new Uint8Array(8))],
    ["jumbogram", headed(0, [59, 0, 0xc2, 4, 0, 1, 0, 0]).with(4, 0).with(5, 0)],
  ];
  for (const [name, bytes] of broken) {
    const packet = packetOf(bytes);
    assert(Ipv6.of(packet) === undefined, name);
    assert.equal(packet.malformed, true, name);
  }
  const most = packetOf(chain(Array.from({ length: 16 }, () => options(60)), 17, new Uint8Array(8)));
  assert.equal(Ipv6.of(most)!.protocol, Protocol.Udp);
});

Deno.test("Ipv6.src and Ipv6.dst give the view's own bytes, which the next read overwrites", () => {
  const packet = packetOf(headed(59, []));
  const ip = Ipv6.of(packet)!;
  const { src, dst } = ip;
  src[15] = 9;
  assert.equal(ip.srcText, "2001:db8::1");
  assert.equal(ip.src, src);
  assert.deepEqual(src, parseIpv6("2001:db8::1"));
  assert.notEqual(src, dst);
  ip.src = dst;
  assert.equal(ip.srcText, "2001:db8::2");
});

Deno.test("Ipv6.src set throws TypeError unless it has 16 bytes", () => {
  const ip = Ipv6.of(packetOf(headed(59, [])))!;
  for (const length of [0, 4, 15, 17]) {
    assert.throws(() => ip.src = new Uint8Array(length), {
      name: "TypeError",
      message: `Cannot set an IPv6 address: it must have 16 bytes, got ${length}`,
    });
    assert.throws(() => ip.dst = new Uint8Array(length), TypeError);
  }
});

Deno.test("Ipv6.setNextHeader() changes the protocol if there are no extension headers", () => {
  const plain = Ipv6.of(packetOf(headed(17, new Uint8Array(8))))!;
  plain.setNextHeader(6);
  assert.deepEqual([plain.nextHeader, plain.protocol], [6, 6]);
  const packet = packetOf(chain([options(60)], 17, new Uint8Array(8)));
  Ipv6.of(packet)!.setNextHeader(43);
  assert.equal(Ipv6.of(packet)!.protocol, 17);
});

Deno.test("Ipv6.encode() writes fields that Ipv6.of() reads, with a valid checksum, and nothing else", () => {
  fc.assert(
    fc.property(anyFields, anyPayload, (fields, payload) => {
      const packet = packetOf(payload);
      Ipv6.encode(packet, fields);
      const ip = Ipv6.of(packet)!;
      for (const name of Object.keys(fields) as (keyof Ipv6Fields)[]) {
        assert.deepEqual(ip[name], fields[name], name);
      }
      assert.equal(ip.payloadLength, payload.length);
      const data = packet.data.slice();
      const field = CHECKSUM_FIELDS.get(fields.nextHeader) ?? 60;
      if ([6, 17, 58].includes(fields.nextHeader) && field + 2 <= payload.length) {
        assertRightSum(data, fields.nextHeader);
        if (fields.nextHeader === 17) assert.notEqual(data[46]! | data[47]!, 0);
        data.set(payload.subarray(field, field + 2), 40 + field);
      }
      assert.deepEqual(data.subarray(40), payload);
      assert(pool.bytes.subarray(packet.slotStart, packet.offset).every((byte) => byte === 0xa5));
      assert(
        pool.bytes.subarray(packet.offset + packet.length, packet.slotEnd).every((byte) => byte === 0xa5),
      );
    }),
    SEED,
  );
});

Deno.test("Ipv6.encode() uses its defaults and writes the checksum after extension headers", () => {
  const extended = chain([options(0), options(60, 1)], 17, [0, 1, 0, 2, 0, 9, 0, 0, 0x77]).subarray(40);
  const packet = packetOf(extended);
  Ipv6.encode(packet, { src: parseIpv6("::1"), dst: parseIpv6("::2"), nextHeader: 0 });
  const ip = Ipv6.of(packet)!;
  assert.deepEqual([ip.hopLimit, ip.trafficClass, ip.flowLabel, ip.protocol], [64, 0, 0, 17]);
  assertRightSum(packet.data, 17, 64);
});

Deno.test("Ipv6.encode() throws RangeError for a field out of range, and leaves the packet unchanged", () => {
  const good: Ipv6Fields = { src: new Uint8Array(16), dst: new Uint8Array(16), nextHeader: 59 };
  const bad: [string, unknown, string][] = [
    ["src", new Uint8Array(4), "src must have 16 bytes, got 4"],
    ["dst", new Uint8Array(17), "dst must have 16 bytes, got 17"],
    ["nextHeader", 256, "nextHeader must be an integer from 0 to 255, got 256"],
    ["hopLimit", -1, "hopLimit must be an integer from 0 to 255, got -1"],
    ["trafficClass", 1.5, "trafficClass must be an integer from 0 to 255, got 1.5"],
    ["flowLabel", 0x100000, "flowLabel must be an integer from 0 to 1048575, got 1048576"],
  ];
  for (const [name, value, what] of bad) {
    const packet = packetOf(new Uint8Array(8));
    const offset = packet.offset;
    assert.throws(() => Ipv6.encode(packet, { ...good, [name]: value }), {
      name: "RangeError",
      message: `Cannot encode an IPv6 packet: ${what}`,
    });
    assert.deepEqual([packet.offset, packet.length, packet.data], [offset, 8, new Uint8Array(8)]);
  }
  const long = pool.packets[1]!;
  long.reset(65_536);
  assert.throws(() => Ipv6.encode(long, good), {
    message: "Cannot encode an IPv6 packet: its payload length must be at most 65535, got 65536",
  });
  long.reset(65_535);
  Ipv6.encode(long, good);
  assert.equal(Ipv6.of(long)!.totalLength, 65_575);
});

Deno.test("Ipv6's setters update the transport checksum after extension headers, in any order", () => {
  const anyExtensions = fc.constantFrom([], [options(0, 1), options(60)], [authentication(4)], [
    fragment(0, false),
  ]);
  fc.assert(
    fc.property(
      fc.constantFrom(...CHECKSUM_FIELDS.keys()),
      anyExtensions,
      anyPayload,
      anyChanges,
      (protocol, extensions, payload, changes) => {
        const field = CHECKSUM_FIELDS.get(protocol)!;
        if (field + 2 > payload.length) return;
        const packet = packetOf(chain(extensions, protocol, payload));
        const ip = Ipv6.of(packet)!;
        const start = ip.headerLength;
        packet.view.setUint16(ip.payloadOffset + field, 0);
        const total = plainSum([
          ...pseudoHeader(packet.data, protocol, start),
          ...packet.data.subarray(start),
        ]);
        packet.view.setUint16(ip.payloadOffset + field, total === 0xffff && field === 6 ? 0xffff : ~total);
        const before = packet.data.slice(40);
        for (const step of changes) {
          change(ip, step);
          assertRightSum(packet.data, protocol, start);
          if (protocol === 17) assert.notEqual(packet.view.getUint16(ip.payloadOffset + field), 0);
        }
        const after = packet.data.slice(40);
        after.set(before.subarray(start - 40 + field, start - 38 + field), start - 40 + field);
        assert.deepEqual(after, before);
      },
    ),
    SEED,
  );
});

Deno.test("Ipv6's setters update the pseudo-header's sum in a partial checksum", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(6, 17, 58),
      fc.boolean(),
      anyPayload,
      anyChanges,
      (protocol, extended, payload, changes) => {
        if (payload.length < 20) return;
        const packet = packetOf(chain(extended ? [options(60)] : [], protocol, payload));
        const ip = Ipv6.of(packet)!;
        const start = ip.headerLength;
        const field = CHECKSUM_FIELDS.get(protocol)!;
        packet.checksumStart = start;
        packet.checksumOffset = field;
        packet.view.setUint16(ip.payloadOffset + field, plainSum(pseudoHeader(packet.data, protocol, start)));
        for (const step of changes) change(ip, step);
        const stored = packet.view.getUint16(ip.payloadOffset + field);
        assert.equal(stored, plainSum(pseudoHeader(packet.data, protocol, start)));
        const [finished] = copy(packet);
        assertRightSum(finished!, protocol, start);
        writeTransport(ip);
        assert.equal(packet.checksumStart, 0);
        assertRightSum(packet.data, protocol, start);
      },
    ),
    SEED,
  );
});

Deno.test("Ipv6's setters leave a later fragment, ICMPv4 and UDP without a checksum unchanged", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("fragment", "icmpv4", "udp"),
      anyPayload,
      anyChanges,
      (kind, payload, changes) => {
        const zeroed = payload.length >= 8 ? payload.with(6, 0).with(7, 0) : payload;
        const packet = packetOf(
          kind === "fragment"
            ? chain([fragment(8, true)], 17, payload)
            : headed(kind === "udp" ? 17 : 1, kind === "udp" ? zeroed : payload),
        );
        const before = packet.data.slice(40);
        for (const step of changes) change(Ipv6.of(packet)!, step);
        assert.deepEqual(packet.data.subarray(40), before);
      },
    ),
    SEED,
  );
});

Deno.test("Ipv6's setters keep a checksum that covers a route's last address", () => {
  const last = parseIpv6("2001:db8::99");
  const other = parseIpv6("2001:db8::98");
  // The last address is at the end of type 0, and at the start of types 2 and 4.
  const routes: [Extension, number][] = [
    [routing(0, 1, other, last), 40 + 8 + 16],
    [routing(2, 1, last), 40 + 8],
    [routing(4, 1, last, other), 40 + 8],
  ];
  for (const [route, at] of routes) {
    fc.assert(
      fc.property(anyChanges, fc.constantFrom(6, 17, 58), (changes, protocol) => {
        const payload = new Uint8Array(24).fill(7);
        payload.set([0, 24], 4);
        const packet = packetOf(chain([route], protocol, payload));
        const ip = Ipv6.of(packet)!;
        writeTransport(ip);
        assertRightSum(packet.data, protocol, ip.headerLength, at);
        for (const step of changes) {
          change(ip, step);
          assertRightSum(packet.data, protocol, ip.headerLength, at);
        }
        packet.bytes[packet.offset + 40 + 3] = 0; // at its last address: section 8.1 means `dst` now
        writeTransport(ip);
        assertRightSum(packet.data, protocol, ip.headerLength);
      }),
      { ...SEED, numRuns: 200 },
    );
  }
});

Deno.test("writeTransport() leaves the checksum unchanged for an unknown Routing header", () => {
  for (const route of [routing(3, 1, new Uint8Array(16)), routing(0, 1)]) {
    const packet = packetOf(chain([route], 6, new Uint8Array(24).fill(7)));
    const before = packet.data.slice();
    writeTransport(Ipv6.of(packet)!);
    assert.deepEqual(packet.data, before);
  }
});

Deno.test("writeTransport() leaves a fragment unchanged", () => {
  for (const header of [fragment(0, true), fragment(8, false)]) {
    const packet = packetOf(chain([header], 6, new Uint8Array(24).fill(7)));
    const before = packet.data.slice();
    writeTransport(Ipv6.of(packet)!);
    assert.deepEqual(packet.data, before);
  }
});

Deno.test("Ipv6.of() and its view never throw and stay inside the packet, for any bytes", () => {
  const anyChain = fc.tuple(
    fc.array(fc.tuple(fc.constantFrom(0, 43, 44, 51, 60), fc.nat(2), fc.nat(255), fc.nat(255)), {
      maxLength: 5,
    }),
    fc.nat(255),
    fc.uint8Array({ maxLength: 30 }),
  ).map(([headers, protocol, payload]) => {
    const extensions = headers.map(([type, units, third, fourth]): Extension => {
      const length = type === 44 ? 8 : type === 51 ? (units + 2) * 4 : (units + 1) * 8;
      const bytes = new Uint8Array(length).fill(third);
      bytes.set([0, units, third, fourth]);
      return { type, bytes };
    });
    return chain(extensions, protocol, payload);
  });
  const anyPacket = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    anyChain,
    fc.tuple(anyChain, fc.nat(), fc.nat(255)).map(([bytes, at, value]) =>
      bytes.with(at % bytes.length, value)
    ),
    fc.tuple(anyChain, fc.nat()).map(([bytes, length]) => bytes.subarray(0, length % bytes.length)),
  );
  let seen = 0;
  fc.assert(
    fc.property(
      anyPacket,
      anyChanges,
      fc.nat(90),
      fc.nat(90),
      (bytes, changes, checksumStart, checksumOffset) => {
        const packet = packetOf(bytes);
        packet.checksumStart = checksumStart;
        packet.checksumOffset = checksumOffset;
        const ip = Ipv6.of(packet);
        assert.equal(ip === undefined && (bytes.length === 0 || bytes[0]! >> 4 === 6), packet.malformed);
        if (ip === undefined) return;
        seen++;
        const end = packet.offset + ip.totalLength;
        const before = pool.bytes.slice(packet.slotStart, packet.slotEnd);
        for (const step of changes) change(ip, step);
        writeTransport(ip);
        readAll(ip);
        for (let type = 0; type < 256; type++) {
          const at = ip.extension(type);
          assert(at === -1 || at >= packet.offset + 40 && at < ip.payloadOffset);
        }
        assert.equal(ip.payloadOffset + ip.payloadLength, end);
        assert(ip.payloadLength >= 0 && end <= packet.offset + bytes.length);
        assert(Ipv6.of(packet) === ip);
        ip.setNextHeader(checksumOffset);
        writeTransport(ip);
        readAll(ip);
        const after = pool.bytes.slice(packet.slotStart, packet.slotEnd);
        after.fill(0, packet.offset - packet.slotStart, end - packet.slotStart);
        before.fill(0, packet.offset - packet.slotStart, end - packet.slotStart);
        assert.deepEqual(after, before);
      },
    ),
    { ...SEED, numRuns: 5000 },
  );
  assert(seen > 1000, `only ${seen} headers`);
});

/** Fragment headers with any offset and More Fragments flag. */
function fragments(...words: number[]): Uint8Array {
  const headers = words.flatMap((word, i) => {
    const next = i + 1 < words.length ? 44 : 17;
    return [next, 0, word >> 8, word & 255, 0, 0, 0, i + 1];
  });
  return headed(44, [...headers, 0x13, 0x88, 0, 53, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

Deno.test("Ipv6.of() accepts atomic Fragment headers next to a real one, but not a fragment in a fragment", () => {
  const read = (...words: number[]) => {
    const packet = packetOf(fragments(...words));
    const ip = Ipv6.of(packet);
    assert.equal(packet.malformed, ip === undefined);
    if (ip === undefined) return undefined;
    const { isFragment, fragmentOffset, moreFragments } = ip;
    const header = (ip.fragmentHeader - ip.start - 40) / 8;
    return { isFragment, fragmentOffset, moreFragments, header, protocol: ip.protocol };
  };
  const atomic = { isFragment: false, fragmentOffset: 0, moreFragments: false, header: 0, protocol: 17 };
  const first = { ...atomic, isFragment: true, moreFragments: true };
  const later = { ...first, fragmentOffset: 1448, moreFragments: false };
  assert.deepEqual(read(0), atomic);
  assert.deepEqual(read(0, 0), atomic);
  // The reserved bits mean nothing.
  assert.deepEqual(read(6), atomic);
  assert.deepEqual(read(7), first);
  assert.deepEqual(read(1), first);
  assert.deepEqual(read(0, 1), { ...first, header: 1 });
  assert.deepEqual(read(1, 0), first);
  assert.deepEqual(read(1448), later);
  assert.deepEqual(read(0, 1448), { ...later, header: 1 });
  // A later fragment's payload is not a header, for any first byte.
  assert.deepEqual(read(1448, 1), { ...later, protocol: 44 });
  for (const words of [[1, 1], [1, 8], [1, 1448], [0, 1, 1]]) assert.equal(read(...words), undefined);
});
