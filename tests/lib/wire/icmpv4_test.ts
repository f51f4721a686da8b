/** Tests of lib/wire/icmpv4.ts. */

import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Udp } from "@warren/tunnel/udp";
import fc from "fast-check";
import { deepEqual, equal, throws } from "node:assert/strict";
import { encodeIp, hex, packetOf, wrongChecksum } from "../../kit/packets.ts";

const ICMP = 1;

function message(fields: Parameters<typeof Icmpv4.encode>[1], payload: ArrayLike<number> = []): Icmpv4 {
  const packet = packetOf(Uint8Array.from(payload));
  Icmpv4.encode(packet, fields);
  return Icmpv4.of(encodeIp(packet, 4, ICMP))!;
}

Deno.test("Icmpv4.encode() writes the echo header of RFC 792, and Ipv4.encode() its checksum", () => {
  const { packet } = message({ type: Icmpv4.EchoRequest, id: 0x0102, seq: 0x0304 }, [0xff]);
  equal(hex(packet.data.subarray(20)), "08 00 f4 f8 01 02 03 04 ff");
});

Deno.test("Icmpv4.encode() takes rest instead of id and seq", () => {
  const icmp = message({ type: Icmpv4.DestinationUnreachable, code: 4, rest: 1400 });
  deepEqual([icmp.type, icmp.code, icmp.id, icmp.seq, icmp.rest], [3, 4, 0, 1400, 1400]);
});

Deno.test("Icmpv4.encode() throws RangeError for a field out of range, and leaves the packet unchanged", () => {
  const packet = packetOf([1]);
  for (const wrong of [{ type: 256 }, { code: -1 }, { id: 65_536 }, { seq: 0.5 }, { rest: 2 ** 32 }]) {
    throws(() => Icmpv4.encode(packet, { type: 8, ...wrong }), RangeError);
  }
  equal(packet.length, 1);
});

Deno.test("Icmpv4.of() reads every field", () => {
  const icmp = message({ type: Icmpv4.EchoRequest, id: 0xfffe, seq: 0x8000 }, [1, 2, 3]);
  deepEqual([icmp.type, icmp.code, icmp.id, icmp.seq, icmp.rest], [8, 0, 0xfffe, 0x8000, 0xfffe8000]);
  deepEqual([...icmp.payload], [1, 2, 3]);
  equal(icmp.payloadOffset, icmp.start + 8);
  equal(icmp.ip, Ipv4.of(icmp.packet));
});

Deno.test("Icmpv4.of() returns undefined without a mark over IPv6, for another protocol and a later fragment", () => {
  const later = message({ type: 8 }).packet;
  Ipv4.of(later)!.fragmentOffset = 8;
  for (
    const packet of [encodeIp(packetOf(new Uint8Array(8)), 6, ICMP), encodeIp(packetOf([]), 4, 17), later]
  ) {
    equal(Icmpv4.of(packet), undefined);
    equal(packet.malformed, false);
  }
});

Deno.test("Icmpv4.of() returns undefined and marks a truncated header", () => {
  const packet = encodeIp(packetOf(new Uint8Array(7)), 4, ICMP);
  equal(Icmpv4.of(packet), undefined);
  equal(packet.malformed, true);
});

Deno.test("Icmpv4.type turns a ping into its reply with a valid checksum, even if all bytes are zero", () => {
  for (const id of [0, 7]) {
    const icmp = message({ type: Icmpv4.EchoRequest, id }, new Uint8Array(56));
    icmp.type = Icmpv4.EchoReply;
    icmp.ip.swap();
    equal(wrongChecksum(icmp.packet.data), "");
    equal(icmp.checksumValid, true);
    equal(icmp.ip.srcText, "10.9.0.77");
  }
});

Deno.test("Icmpv4 setters leave a valid checksum after any sequence", () => {
  const setters: ((icmp: Icmpv4, value: number) => void)[] = [
    (icmp, value) => icmp.type = value,
    (icmp, value) => icmp.code = value,
    (icmp, value) => icmp.id = value,
    (icmp, value) => icmp.seq = value,
    (icmp, value) => icmp.rest = value,
    (icmp, value) => icmp.ip.src = value,
    (icmp) => icmp.ip.swap(),
    (icmp) => icmp.refreshChecksum(),
  ];
  fc.assert(
    fc.property(
      fc.oneof(fc.uint8Array({ maxLength: 30 }), fc.constant(new Uint8Array(8))),
      fc.array(
        fc.tuple(fc.nat(setters.length - 1), fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 0xffff))),
        {
          maxLength: 30,
        },
      ),
      (payload, steps) => {
        const icmp = message({ type: 8, id: 7, seq: 1 }, payload);
        for (const [setter, value] of steps) {
          setters[setter]!(icmp, value);
          equal(wrongChecksum(icmp.packet.data), "");
          equal(icmp.checksumValid, true);
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("Icmpv4.of() after Icmpv4.encode() gives back fields and payload", () => {
  fc.assert(fc.property(
    fc.record({ type: fc.nat(0xff), code: fc.nat(0xff), id: fc.nat(0xffff), seq: fc.nat(0xffff) }),
    fc.uint8Array({ maxLength: 100 }),
    (fields, payload) => {
      const icmp = message(fields, payload);
      const { type, code, id, seq } = icmp;
      deepEqual({ type, code, id, seq }, fields);
      deepEqual([...icmp.payload], [...payload]);
      equal(wrongChecksum(icmp.packet.data), "");
    },
  ));
});

Deno.test("Icmpv4.quotedOffset and Icmpv4.quotedLength find the packet that an error quotes", () => {
  const quoted = packetOf(new Uint8Array(8));
  Udp.encode(quoted, { srcPort: 1, dstPort: 2 });
  encodeIp(quoted, 4, 17);
  for (const type of [3, 4, 5, 11, 12]) {
    const icmp = message({ type }, quoted.data);
    equal(icmp.quotedOffset, icmp.start + 8);
    equal(icmp.quotedLength, 36);
  }
  const echo = message({ type: Icmpv4.EchoRequest }, quoted.data);
  deepEqual([echo.quotedOffset, echo.quotedLength], [-1, 0]);
});

Deno.test("Icmpv4.quotedLength follows RFC 4884, and never exceeds the message", () => {
  const extended = message({ type: Icmpv4.TimeExceeded, rest: 32 << 16 }, new Uint8Array(140));
  equal(extended.quotedLength, 128);
  extended.rest = 255 << 16;
  equal(extended.quotedLength, 140);
  // A redirect has an address there.
  equal(message({ type: Icmpv4.Redirect, rest: 0x0a010203 }, new Uint8Array(28)).quotedLength, 28);
});
