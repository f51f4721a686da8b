/** Tests of `Ipv4`: reading, writing and changing headers, and rejecting malformed ones; and of `Ip` for both versions. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { writeTransport } from "../../../lib/wire/_encode.ts";
import { parseIpv4 } from "../../../lib/wire/address.ts";
import { type Packet, PacketPool } from "../../../lib/core/mod.ts";
import { Ip, Protocol, transport } from "../../../lib/wire/ip.ts";
import { Ipv4, type Ipv4Fields } from "../../../lib/wire/ipv4.ts";
import { Ipv6 } from "../../../lib/wire/ipv6.ts";
import { Tcp } from "../../../lib/wire/tcp.ts";
import { copy } from "../../../lib/split/copy.ts";
import { plainSum, readAll, refill } from "../../kit/packets.ts";

const SEED = { seed: 791, numRuns: 1000 };
const CHECKSUM_FIELDS = new Map<number, number>([[6, 16], [17, 6], [33, 6], [136, 6], [1, 2]]);

const pool = new PacketPool({ small: 1, large: 1 });

/** A packet of these bytes, in memory that is 0xa5 elsewhere. */
function packetOf(bytes: Uint8Array | number[], slot = 0): Packet {
  return refill(pool.packets[slot]!, bytes);
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.replaceAll(/\s/g, "").match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/** The pseudo-header of RFC 9293 section 3.1 in front of a packet with a header of 20 bytes. */
function pseudoHeader(data: Uint8Array): number[] {
  const length = data.length - 20;
  return data[9] === 1 ? [] : [...data.subarray(12, 20), 0, data[9]!, length >> 8, length & 255];
}

/** Asserts that both checksums of a whole packet are right. */
function assertRightSums(data: Uint8Array): void {
  assert.equal(plainSum(data.subarray(0, 20)), 0xffff);
  if (CHECKSUM_FIELDS.has(data[9]!)) {
    assert.equal(plainSum([...pseudoHeader(data), ...data.subarray(20)]), 0xffff);
  }
}

const anyAddress = fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 1, 0xffff, 0xffff0000, 0xffffffff));
const anyFields: fc.Arbitrary<Required<Ipv4Fields>> = fc.record({
  src: anyAddress,
  dst: anyAddress,
  protocol: fc.constantFrom(6, 17, 1, 33, 47, 58, 136),
  ttl: fc.nat(255),
  id: fc.nat(65_535),
  dontFragment: fc.boolean(),
  dscp: fc.nat(63),
  ecn: fc.nat(3),
});
/** Up to 60 bytes, with a UDP length field that covers all of them. */
const anyPayload = fc.uint8Array({ maxLength: 60 }).map((bytes) => {
  if (bytes.length >= 6) new DataView(bytes.buffer, bytes.byteOffset).setUint16(4, bytes.length);
  return bytes;
});

type Change = [name: (typeof SETTERS)[number] | "swap", value: number];
const SETTERS = ["ttl", "src", "dst", "id", "dscp", "ecn", "dontFragment"] as const;
const FRAGMENT_SETTERS = ["moreFragments", "fragmentOffset"] as const;
const anyChanges = fc.array(
  fc.tuple(fc.constantFrom(...SETTERS, "swap" as const), fc.oneof(fc.integer(), anyAddress)),
  { maxLength: 12 },
);

function change(ip: Ipv4, [name, value]: Change): void {
  if (name === "swap") ip.swap();
  else if (name === "dontFragment") ip[name] = value % 2 === 0;
  else ip[name] = value;
}

/** A header found in many texts, over UDP: 192.168.0.1 to 192.168.0.199, 115 bytes. */
const KNOWN_HEADER = "4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7";

Deno.test("Ipv4.of() reads every field of a header", () => {
  const packet = packetOf([...fromHex(KNOWN_HEADER), ...new Uint8Array(95)]);
  const ip = Ipv4.of(packet)!;
  assert.equal(ip.version, 4);
  assert.equal(ip.start, packet.offset);
  assert.equal(ip.headerLength, 20);
  assert.equal(ip.optionsLength, 0);
  assert.equal(ip.totalLength, 115);
  assert.equal(ip.id, 0);
  assert.equal(ip.dontFragment, true);
  assert.equal(ip.moreFragments, false);
  assert.equal(ip.fragmentOffset, 0);
  assert.equal(ip.isFragment, false);
  assert.equal(ip.ttl, 64);
  assert.equal(ip.protocol, Protocol.Udp);
  assert.equal(ip.checksum, 0xb861);
  assert.equal(ip.src, parseIpv4("192.168.0.1"));
  assert.equal(ip.dst, parseIpv4("192.168.0.199"));
  assert.equal(ip.srcText, "192.168.0.1");
  assert.equal(ip.dstText, "192.168.0.199");
  assert.equal(ip.payloadOffset, packet.offset + 20);
  assert.equal(ip.payloadLength, 95);
  assert.equal(packet.malformed, false);
});

Deno.test("Ipv4.of() reads flags, service and options", () => {
  const packet = packetOf(
    fromHex("46b9 0020 1234 2005 0106 0000 01020304 05060708 94040000 a5a5a5a5a5a5a5a5"),
  );
  const ip = Ipv4.of(packet)!;
  assert.equal(ip.dscp, 46);
  assert.equal(ip.ecn, 1);
  assert.equal(ip.dontFragment, false);
  assert.equal(ip.moreFragments, true);
  assert.equal(ip.fragmentOffset, 40);
  assert.equal(ip.isFragment, true);
  assert.equal(ip.headerLength, 24);
  assert.equal(ip.optionsOffset, packet.offset + 20);
  assert.equal(ip.optionsLength, 4);
  assert.equal(ip.payloadOffset, packet.offset + 24);
  assert.equal(ip.payloadLength, 8);
});

Deno.test("Ipv4.of() excludes padding after the total length from the payload", () => {
  const packet = packetOf([...fromHex(KNOWN_HEADER), ...new Uint8Array(200)]);
  assert.equal(Ipv4.of(packet)!.payloadLength, 95);
  assert.equal(Ipv4.of(packet)!.totalLength, 115);
});

Deno.test("Ipv4.of() returns the packet's own view each time", () => {
  const packet = packetOf([...fromHex(KNOWN_HEADER), ...new Uint8Array(95)]);
  assert(Ipv4.of(packet) === Ipv4.of(packet));
});

Deno.test("Ipv4.of() returns undefined for another version without a mark", () => {
  for (const first of [0x00, 0x35, 0x60, 0xf5]) {
    const packet = packetOf([first, ...new Uint8Array(39)]);
    assert(Ipv4.of(packet) === undefined);
    assert.equal(packet.malformed, false);
  }
});

Deno.test("Ipv4.of() returns undefined and marks a truncated or inconsistent header", () => {
  const whole = fromHex("4600 0020 0000 0000 4011 0000 01020304 05060708 01010100 a5a5a5a5a5a5a5a5");
  assert(Ipv4.of(packetOf(whole)) !== undefined);
  const changed = (at: number, value: number): Uint8Array => whole.with(at, value);
  const broken: [string, Uint8Array][] = [
    ["empty", new Uint8Array()],
    ["IHL below 5", changed(0, 0x44)],
    ["IHL beyond the total length", changed(0, 0x4f)],
    ["total length 0", changed(3, 0)],
    ["total length below the header's", changed(3, 23)],
    ["total length beyond the packet", changed(3, 33)],
  ];
  for (let length = 1; length < 32; length++) broken.push([`${length} bytes`, whole.subarray(0, length)]);
  for (const [name, bytes] of broken) {
    const packet = packetOf(bytes);
    assert(Ipv4.of(packet) === undefined, name);
    assert.equal(packet.malformed, true, name);
  }
});

Deno.test("Ipv4.encode() writes a known header, with its defaults", () => {
  const packet = packetOf(new Uint8Array(95));
  Ipv4.encode(packet, { src: parseIpv4("192.168.0.1"), dst: parseIpv4("192.168.0.199"), protocol: 17 });
  assert.deepEqual(packet.data.subarray(0, 20), fromHex(KNOWN_HEADER));
  assert.equal(packet.length, 115);
});

Deno.test("Ipv4.encode() writes fields that Ipv4.of() reads, with valid checksums, and nothing else", () => {
  fc.assert(
    fc.property(anyFields, anyPayload, (fields, payload) => {
      const packet = packetOf(payload);
      Ipv4.encode(packet, fields);
      const ip = Ipv4.of(packet)!;
      for (const name of Object.keys(fields) as (keyof Ipv4Fields)[]) {
        assert.equal(ip[name], fields[name], name);
      }
      assert.equal(ip.totalLength, payload.length + 20);
      assert.equal(ip.headerLength, 20);
      assert.equal(ip.isFragment, false);
      const data = packet.data.slice();
      assert.equal(plainSum(data.subarray(0, 20)), 0xffff);
      const field = CHECKSUM_FIELDS.get(fields.protocol) ?? 60;
      const written = [6, 17, 1].includes(fields.protocol) && field + 2 <= payload.length;
      if (written) {
        assertRightSums(data);
        if (fields.protocol === 17) assert.notEqual(data[26]! | data[27]!, 0);
        data.set(payload.subarray(field, field + 2), 20 + field);
      }
      assert.deepEqual(data.subarray(20), payload);
      assert(pool.bytes.subarray(packet.slotStart, packet.offset).every((byte) => byte === 0xa5));
      assert(
        pool.bytes.subarray(packet.offset + packet.length, packet.slotEnd).every((byte) => byte === 0xa5),
      );
    }),
    SEED,
  );
});

Deno.test("Ipv4.encode() covers the bytes of UDP's length field with the checksum", () => {
  const packet = packetOf(fromHex("0035 0035 0009 0000 77 99"));
  Ipv4.encode(packet, { src: 1, dst: 2, protocol: 17 });
  assert.equal(plainSum([0, 0, 0, 1, 0, 0, 0, 2, 0, 17, 0, 9, ...packet.data.subarray(20, 29)]), 0xffff);
});

Deno.test("Ipv4.encode() throws RangeError for a field out of range, and leaves the packet unchanged", () => {
  const good: Ipv4Fields = { src: 0, dst: 0, protocol: 17 };
  const bad: [string, number][] = [
    ["src", -1],
    ["src", 2 ** 32],
    ["dst", 1.5],
    ["dst", NaN],
    ["protocol", 256],
    ["ttl", 256],
    ["ttl", -1],
    ["id", 65_536],
    ["dscp", 64],
    ["ecn", 4],
  ];
  for (const [name, value] of bad) {
    const packet = packetOf(new Uint8Array(8));
    const offset = packet.offset;
    assert.throws(() => Ipv4.encode(packet, { ...good, [name]: value }), {
      name: "RangeError",
      message: new RegExp(
        `^Cannot encode an IPv4 packet: ${name} must be an integer from 0 to \\d+, got ${value}$`,
      ),
    });
    assert.deepEqual([packet.offset, packet.length, packet.data], [offset, 8, new Uint8Array(8)]);
  }
  const long = pool.packets[1]!;
  long.reset(65_516);
  assert.throws(() => Ipv4.encode(long, good), {
    message: "Cannot encode an IPv4 packet: its total length must be at most 65535, got 65536",
  });
  long.reset(65_515);
  Ipv4.encode(long, good);
  assert.equal(Ipv4.of(long)!.totalLength, 65_535);
  const packet = packetOf(new Uint8Array(8));
  packet.offset = packet.slotStart + 19;
  assert.throws(() => Ipv4.encode(packet, good), RangeError);
  assert.equal(packet.length, 8);
});

Deno.test("Ipv4's setters update header and transport checksums in any order", () => {
  fc.assert(
    fc.property(anyFields, anyPayload, anyChanges, (fields, payload, changes) => {
      const packet = packetOf(payload);
      Ipv4.encode(packet, fields);
      const ip = Ipv4.of(packet)!;
      const field = CHECKSUM_FIELDS.get(fields.protocol) ?? 60;
      if (field + 2 > payload.length) return;
      if (fields.protocol === 33 || fields.protocol === 136) { // left to others by encode()
        packet.view.setUint16(ip.payloadOffset + field, 0);
        const total = plainSum([...pseudoHeader(packet.data), ...packet.data.subarray(20)]);
        packet.view.setUint16(ip.payloadOffset + field, total === 0xffff ? 0xffff : ~total);
      }
      const before = packet.data.slice(20);
      for (const step of changes) {
        change(ip, step);
        assertRightSums(packet.data);
        if (fields.protocol === 17) assert.notEqual(packet.view.getUint16(ip.payloadOffset + field), 0);
      }
      const after = packet.data.slice(20);
      after.set(before.subarray(field, field + 2), field);
      assert.deepEqual(after, before);
    }),
    SEED,
  );
});

Deno.test("Ipv4's setters update the pseudo-header's sum in a partial checksum", () => {
  const anyPartial = fc.constantFrom(6, 17);
  fc.assert(
    fc.property(anyFields, anyPartial, anyPayload, anyChanges, (fields, protocol, payload, changes) => {
      if (payload.length < 20) return;
      const packet = packetOf(payload);
      Ipv4.encode(packet, { ...fields, protocol });
      const field = CHECKSUM_FIELDS.get(protocol)!;
      const ip = Ipv4.of(packet)!;
      packet.checksumStart = 20;
      packet.checksumOffset = field;
      packet.view.setUint16(ip.payloadOffset + field, plainSum(pseudoHeader(packet.data)));
      for (const step of changes) change(ip, step);
      const stored = packet.view.getUint16(ip.payloadOffset + field);
      assert.equal(stored, plainSum(pseudoHeader(packet.data)));
      const [finished] = copy(packet);
      assertRightSums(finished!);
    }),
    SEED,
  );
});

Deno.test("Ipv4's setters keep a wrong header checksum wrong", () => {
  const packet = packetOf(fromHex(KNOWN_HEADER.replace("0073", "0014").replace("b861", "b8c1")));
  const before = plainSum(packet.data);
  assert.notEqual(before, 0xffff);
  Ipv4.of(packet)!.ttl--;
  Ipv4.of(packet)!.src = 0x0a000001;
  assert.equal(plainSum(packet.data), before);
});

Deno.test("Ipv4's setters change nothing after the header of a later fragment, or in UDP without a checksum", () => {
  fc.assert(
    fc.property(anyFields, anyPayload, anyChanges, fc.boolean(), (fields, payload, changes, fragment) => {
      const packet = packetOf(payload);
      Ipv4.encode(packet, { ...fields, protocol: fragment ? fields.protocol : 17 });
      const ip = Ipv4.of(packet)!;
      if (fragment) ip.fragmentOffset = 8;
      else if (payload.length >= 8) packet.view.setUint16(ip.payloadOffset + 6, 0);
      const before = packet.data.slice(20);
      for (const step of changes) change(ip, step);
      assert.deepEqual(packet.data.subarray(20), before);
      assert.equal(plainSum(packet.data.subarray(0, 20)), 0xffff);
      if (!fragment && payload.length >= 8) return;
      writeTransport(ip);
      assert.deepEqual(packet.data.subarray(20), before);
    }),
    SEED,
  );
});

Deno.test("Ipv4's fragment setters update the header checksum and keep each other's bits", () => {
  const packet = packetOf(fromHex(KNOWN_HEADER.replace("0073", "0014").replace("b861", "b8c0")));
  const ip = Ipv4.of(packet)!;
  for (const name of FRAGMENT_SETTERS) assert.equal(Number(ip[name]), 0);
  ip.fragmentOffset = 65_528;
  assert.deepEqual([ip.dontFragment, ip.moreFragments, ip.fragmentOffset], [true, false, 65_528]);
  ip.moreFragments = true;
  ip.dontFragment = false;
  ip.fragmentOffset = 1480 + 7;
  assert.deepEqual([ip.dontFragment, ip.moreFragments, ip.fragmentOffset], [false, true, 1480]);
  assert.equal(ip.isFragment, true);
  assert.equal(plainSum(packet.data), 0xffff);
});

Deno.test("Ipv4.setProtocol() updates the header checksum, and refreshChecksum() writes the new protocol's", () => {
  const packet = packetOf(new Uint8Array(24));
  Ipv4.encode(packet, { src: 1, dst: 2, protocol: 47 });
  const ip = Ipv4.of(packet)!;
  ip.setProtocol(6);
  assert.equal(ip.protocol, 6);
  assert.equal(plainSum(packet.data.subarray(0, 20)), 0xffff);
  packet.view.setUint16(ip.payloadOffset + 12, 0x5000);
  Tcp.of(packet)!.refreshChecksum();
  assertRightSums(packet.data);
});

Deno.test("writeTransport() replaces a partial checksum by a complete one", () => {
  const packet = packetOf(new Uint8Array(24).fill(9));
  Ipv4.encode(packet, { src: 1, dst: 2, protocol: 6 });
  packet.checksumStart = 20;
  packet.checksumOffset = 16;
  writeTransport(Ipv4.of(packet)!);
  assert.deepEqual([packet.checksumStart, packet.checksumOffset], [0, 0]);
  assertRightSums(packet.data);
});

Deno.test("Ipv4.of() and its view never throw and stay inside the packet, for any bytes", () => {
  const anyPacket = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.tuple(fc.integer({ min: 0x44, max: 0x4a }), fc.nat(4), fc.uint8Array({ minLength: 20, maxLength: 64 }))
      .map(([first, padding, bytes]) =>
        Uint8Array.from([first, bytes[1]!, 0, bytes.length - padding, ...bytes.subarray(4)])
      ),
  );
  let seen = 0;
  fc.assert(
    fc.property(
      anyPacket,
      anyChanges,
      fc.nat(70),
      fc.nat(70),
      (bytes, changes, checksumStart, checksumOffset) => {
        const packet = packetOf(bytes);
        packet.checksumStart = checksumStart;
        packet.checksumOffset = checksumOffset;
        const ip = Ipv4.of(packet);
        assert.equal(ip === undefined && (bytes.length === 0 || bytes[0]! >> 4 === 4), packet.malformed);
        if (ip === undefined) return;
        seen++;
        const end = packet.offset + ip.totalLength;
        const before = pool.bytes.slice(packet.slotStart, packet.slotEnd);
        for (const step of changes) change(ip, step);
        for (const name of FRAGMENT_SETTERS) Object.assign(ip, { [name]: checksumStart });
        ip.setProtocol(checksumOffset);
        writeTransport(ip);
        readAll(ip);
        assert(ip.payloadOffset >= packet.offset + 20 && ip.payloadOffset + ip.payloadLength === end);
        const after = pool.bytes.slice(packet.slotStart, packet.slotEnd);
        after.fill(0, packet.offset - packet.slotStart, end - packet.slotStart);
        before.fill(0, packet.offset - packet.slotStart, end - packet.slotStart);
        assert.deepEqual(after, before);
        assert(Ipv4.of(packet) === ip);
      },
    ),
    { ...SEED, numRuns: 5000 },
  );
  assert(seen > 1000, `only ${seen} headers`);
});

Deno.test("Ip.of() finds either version, and marks anything else", () => {
  const four = packetOf([]);
  Ipv4.encode(four, { src: 1, dst: 2, protocol: 47 });
  assert(Ip.of(four) instanceof Ipv4);
  const six = packetOf([]);
  Ipv6.encode(six, { src: new Uint8Array(16), dst: new Uint8Array(16), nextHeader: 59 });
  assert(Ip.of(six) instanceof Ipv6);
  assert.equal(six.malformed, false);
  for (const bytes of [[], [0x00], [0x50, ...new Uint8Array(60)], [0x45], [0x60]]) {
    const packet = packetOf(bytes);
    assert(Ip.of(packet) === undefined);
    assert.equal(packet.malformed, true);
  }
});

Deno.test("transport() finds the header of a protocol, but not in a later fragment", () => {
  const packet = packetOf(new Uint8Array(8));
  Ipv4.encode(packet, { src: 1, dst: 2, protocol: 17 });
  const ip = Ipv4.of(packet)!;
  assert(transport(packet, Protocol.Udp) === ip);
  assert(transport(packet, Protocol.Tcp) === undefined);
  ip.moreFragments = true;
  assert(transport(packet, Protocol.Udp) === ip);
  ip.fragmentOffset = 8;
  assert(transport(packet, Protocol.Udp) === undefined);
  assert.equal(packet.malformed, false);
});
