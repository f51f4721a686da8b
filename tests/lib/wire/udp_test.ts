/** Tests of lib/wire/udp.ts. */

import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Udp } from "@warren/tunnel/udp";
import fc from "fast-check";
import { deepEqual, equal, throws } from "node:assert/strict";
import {
  encodeIp,
  hex,
  IPV4_DST,
  IPV4_SRC,
  IPV6_DST,
  IPV6_SRC,
  makePartial,
  packetOf,
  wrongChecksum,
} from "../../kit/packets.ts";
import { copy } from "../../../lib/split/copy.ts";

const UDP = 17;
const CHECKSUM = 6;

function datagram(version: 4 | 6, payload: readonly number[] | Uint8Array = [1, 2, 3]): Udp {
  const packet = packetOf(payload);
  Udp.encode(packet, { srcPort: 1234, dstPort: 53 });
  return Udp.of(encodeIp(packet, version, UDP))!;
}

Deno.test("Udp.encode() writes the 8 bytes of RFC 768, and Ipv4.encode() their checksum", () => {
  const udp = datagram(4);
  equal(hex(udp.packet.data.subarray(20)), "04 d2 00 35 00 0b e2 6f 01 02 03");
  equal(wrongChecksum(udp.packet.data), "");
});

Deno.test("Udp.of() reads every field over IPv4 and IPv6", () => {
  for (const version of [4, 6] as const) {
    const udp = datagram(version);
    deepEqual(
      [udp.ip.version, udp.srcPort, udp.dstPort, udp.udpLength, udp.payloadLength],
      [version, 1234, 53, 11, 3],
    );
    equal(udp.start, udp.packet.offset + (version === 4 ? 20 : 40));
    equal(udp.payloadOffset, udp.start + 8);
    deepEqual([...udp.payload], [1, 2, 3]);
    equal(udp.checksumValid, true);
    equal(udp.packet.malformed, false);
  }
});

Deno.test("Udp.of() returns the same view for the same handle, for either version", () => {
  const packet = packetOf([]);
  Udp.encode(packet, { srcPort: 1, dstPort: 2 });
  const first = Udp.of(encodeIp(packet, 4, UDP))!;
  packet.strip(20);
  const second = Udp.of(encodeIp(packet, 6, UDP))!;
  equal(first, second);
  equal(second.ip, Ipv6.of(packet));
});

Deno.test("Udp.of() returns undefined without a mark for another protocol and a later fragment", () => {
  const other = encodeIp(packetOf(new Uint8Array(20)), 4, 6);
  equal(Udp.of(other), undefined);
  const later = datagram(4).packet;
  Ipv4.of(later)!.fragmentOffset = 8;
  equal(Udp.of(later), undefined);
  equal(other.malformed || later.malformed, false);
});

Deno.test("Udp.of() returns undefined and marks a truncated header or inconsistent length", () => {
  const short = encodeIp(packetOf(new Uint8Array(7)), 4, UDP);
  equal(Udp.of(short), undefined);
  equal(short.malformed, true);
  for (const length of [0, 7, 12, 65_535]) {
    for (const version of [4, 6] as const) {
      const { packet, start } = datagram(version);
      packet.view.setUint16(start + 4, length);
      equal(Udp.of(packet), undefined, `${length}`);
      equal(packet.malformed, true);
    }
  }
});

Deno.test("Udp.of() takes a datagram shorter than the IP payload, and excludes the rest from its payload", () => {
  const { packet } = datagram(4);
  packet.view.setUint16(packet.offset + 24, 9);
  const udp = Udp.of(packet)!;
  equal(udp.payloadLength, 1);
  udp.refreshChecksum();
  equal(udp.checksumValid, true);
  equal(wrongChecksum(packet.data), "");
});

Deno.test("Ipv4.encode() and Ipv6.encode() cover only the datagram if it is shorter than the IP payload", () => {
  for (const version of [4, 6] as const) {
    for (const more of [1, 2, 7]) {
      const packet = packetOf([1, 2, 3]);
      Udp.encode(packet, { srcPort: 1, dstPort: 2 });
      packet.length += more; // bytes of 0xa5
      const udp = Udp.of(encodeIp(packet, version, UDP))!;
      deepEqual([udp.payloadLength, udp.ip.payloadLength], [3, 11 + more]);
      equal(udp.checksumValid, true);
      equal(wrongChecksum(packet.data), "");
    }
  }
});

Deno.test("Udp.of() takes a first fragment, whose length is the whole datagram's; its checksum is not verified", () => {
  const { packet, start } = datagram(4, new Uint8Array(16));
  packet.view.setUint16(start + 4, 2000);
  Ipv4.of(packet)!.moreFragments = true;
  const udp = Udp.of(packet)!;
  deepEqual([udp.udpLength, udp.payloadLength, udp.checksumValid], [2000, 16, false]);
  const before = udp.checksum;
  udp.refreshChecksum();
  equal(udp.checksum, before);
  // Even if the bytes that are present match the checksum.
  const whole = datagram(4);
  Ipv4.of(whole.packet)!.moreFragments = true;
  equal(Udp.of(whole.packet)!.checksumValid, false);
});

Deno.test("Udp setters keep a checksum of 0 over IPv4", () => {
  const udp = datagram(4);
  udp.packet.view.setUint16(udp.start + CHECKSUM, 0);
  udp.srcPort = 7;
  udp.ip.ttl = 3;
  equal(udp.checksum, 0);
  equal(udp.checksumValid, true);
  udp.refreshChecksum();
  equal(udp.checksum === 0, false);
  equal(wrongChecksum(udp.packet.data), "");
});

Deno.test("Udp.checksumValid is false for a checksum of 0 over IPv6", () => {
  const udp = datagram(6);
  udp.packet.view.setUint16(udp.start + CHECKSUM, 0);
  equal(udp.checksumValid, false);
});

Deno.test("Udp writes a checksum of 0 as 0xffff: Udp.encode(), setters and Udp.refreshChecksum()", () => {
  for (const version of [4, 6] as const) {
    const udp = datagram(version, [0, 0]);
    // With this word the sum is 0xffff, whose complement is 0.
    const word = udp.checksum;
    udp.packet.view.setUint16(udp.payloadOffset, word);
    udp.refreshChecksum();
    equal(udp.checksum, 0xffff);
    equal(wrongChecksum(udp.packet.data), "");
    udp.srcPort = 1235;
    udp.srcPort = 1234;
    equal(udp.checksum, 0xffff);
    equal(datagram(version, [word >> 8, word & 0xff]).checksum, 0xffff);
  }
});

Deno.test("Udp setters drop the high bits of a number that does not fit", () => {
  const udp = datagram(4);
  udp.srcPort = 0x12345;
  udp.dstPort = -1;
  deepEqual([udp.srcPort, udp.dstPort], [0x2345, 0xffff]);
  equal(wrongChecksum(udp.packet.data), "");
});

Deno.test("Udp.encode() throws RangeError for a port out of range, and leaves the packet unchanged", () => {
  const packet = packetOf([1]);
  for (const srcPort of [-1, 65_536, 1.5, NaN]) {
    throws(() => Udp.encode(packet, { srcPort, dstPort: 1 }), RangeError);
    throws(() => Udp.encode(packet, { srcPort: 1, dstPort: srcPort }), RangeError);
  }
  equal(packet.length, 1);
});

Deno.test("Udp.of() after Udp.encode() gives back ports and payload", () => {
  fc.assert(fc.property(
    fc.constantFrom(4 as const, 6 as const),
    fc.nat(0xffff),
    fc.nat(0xffff),
    fc.uint8Array({ maxLength: 300 }),
    (version, srcPort, dstPort, payload) => {
      const packet = packetOf(payload);
      Udp.encode(packet, { srcPort, dstPort });
      const udp = Udp.of(encodeIp(packet, version, UDP))!;
      deepEqual([udp.srcPort, udp.dstPort, [...udp.payload]], [srcPort, dstPort, [...payload]]);
      equal(udp.checksumValid, true);
      equal(wrongChecksum(packet.data), "");
    },
  ));
});

Deno.test("Udp setters leave a valid checksum after any sequence, full and partial", () => {
  const setters: ((udp: Udp, value: number) => void)[] = [
    (udp, value) => udp.srcPort = value,
    (udp, value) => udp.dstPort = value,
    (udp) => udp.swapPorts(),
    (udp) => udp.ip.swap(),
    (udp) => udp.refreshChecksum(),
    (udp, value) => udp.ip.ttl = value,
    (udp, value) => {
      if (udp.ip.version === 4) udp.ip.src = value;
      else udp.ip.src = new Uint8Array(16).fill(value);
    },
    (udp, value) => {
      if (udp.ip.version === 4) udp.ip.dst = value;
      else udp.ip.dst = new Uint8Array(16).fill(value);
    },
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.boolean(),
      fc.uint8Array({ maxLength: 40 }),
      fc.array(
        fc.tuple(fc.nat(setters.length - 1), fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 0xffff))),
        {
          maxLength: 30,
        },
      ),
      (version, partial, payload, steps) => {
        const udp = datagram(version, payload);
        if (partial) makePartial(udp.packet, udp.start, CHECKSUM);
        for (const [setter, value] of steps) {
          setters[setter]!(udp, value);
          const finished = copy(udp.packet)[0]!;
          equal(wrongChecksum(finished), "");
          const field = udp.start - udp.packet.offset + CHECKSUM;
          equal(udp.checksum, finished[field]! * 256 + finished[field + 1]!);
          equal(udp.checksumValid, true);
          equal(udp.packet.checksumStart !== 0, partial);
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("Udp.checksumValid agrees with the slow checksum after any change of any byte", () => {
  fc.assert(fc.property(
    fc.constantFrom(4 as const, 6 as const),
    fc.nat(20),
    fc.nat(0xff),
    (version, at, byte) => {
      const udp = datagram(version, new Uint8Array(13).fill(7));
      // Not the length, which has tests of its own.
      if (at === 4 || at === 5) return;
      udp.packet.bytes[udp.start + at] = byte;
      equal(udp.checksumValid, wrongChecksum(udp.packet.data) === "");
    },
  ));
});

Deno.test("Udp.checksumValid and Udp.refreshChecksum() cover the last address of a route", () => {
  const segments = [...IPV6_SRC, ...IPV6_DST];
  for (const type of [0, 2, 4]) {
    const route = type === 2 ? segments.slice(0, 16) : segments;
    const packet = packetOf([1, 2, 3]);
    Udp.encode(packet, { srcPort: 1, dstPort: 2 });
    packet.prepend(8 + route.length);
    packet.bytes.set([UDP, route.length / 8, type, 1, 0, 0, 0, 0, ...route], packet.offset);
    const udp = Udp.of(encodeIp(packet, 6, 43))!;
    equal(wrongChecksum(packet.data), "", `type ${type}`);
    equal(udp.checksumValid, true);
    udp.packet.bytes[udp.payloadOffset] = 9;
    equal(udp.checksumValid, false);
    udp.refreshChecksum();
    equal(udp.checksumValid, true);
    equal(wrongChecksum(packet.data), "");
  }
});

Deno.test("Udp.refreshChecksum() leaves the checksum unchanged if an unknown Routing header hides the last address", () => {
  const packet = packetOf([1, 2, 3]);
  Udp.encode(packet, { srcPort: 1, dstPort: 2 });
  packet.prepend(24);
  packet.bytes.set([UDP, 2, 3, 1, 0, 0, 0, 0, ...IPV6_DST], packet.offset);
  const udp = Udp.of(encodeIp(packet, 6, 43))!;
  const before = packet.data.slice();
  udp.refreshChecksum();
  deepEqual(packet.data, before);
  equal(udp.checksumValid, false);
});

Deno.test("Udp.checksumValid takes an inner packet's partial checksum as complete", () => {
  for (const header of [8, 9]) {
    const inner = datagram(4, [1, 2, 3, 4, 5]);
    const { packet } = inner;
    makePartial(packet, inner.start, CHECKSUM);
    packet.prepend(header - 8);
    packet.bytes.fill(0x11, packet.offset, packet.offset + header - 8);
    Udp.encode(packet, { srcPort: 1, dstPort: 2 });
    const outer = Udp.of(encodeIp(packet, 4, UDP))!;
    equal(wrongChecksum(copy(packet)[0]!), "");
    equal(outer.checksumValid, true);
    outer.srcPort = 9;
    equal(outer.checksumValid, true);
    equal(wrongChecksum(copy(packet)[0]!), "");
    outer.refreshChecksum();
    equal(wrongChecksum(copy(packet)[0]!), "");
    packet.bytes[outer.start] ^= 1;
    equal(outer.checksumValid, false);
  }
});

Deno.test("Udp.ip is the packet's own IP view", () => {
  const udp = datagram(4);
  equal(udp.ip, Ipv4.of(udp.packet));
  deepEqual([udp.ip.srcText, udp.ip.dstText], ["10.9.0.1", "10.9.0.77"]);
  deepEqual([udp.ip.src, udp.ip.dst], [IPV4_SRC, IPV4_DST]);
});
