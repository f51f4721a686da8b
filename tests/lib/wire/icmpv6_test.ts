/** Tests of lib/wire/icmpv6.ts. */

import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { Ipv6 } from "@warren/tunnel/ipv6";
import fc from "fast-check";
import { deepEqual, equal, throws } from "node:assert/strict";
import { encodeIp, hex, makePartial, packetOf, wrongChecksum } from "../../kit/packets.ts";
import { copy } from "../../../lib/split/copy.ts";

const ICMPV6 = 58;
const CHECKSUM = 2;

function message(fields: Parameters<typeof Icmpv6.encode>[1], payload: ArrayLike<number> = []): Icmpv6 {
  const packet = packetOf(Uint8Array.from(payload));
  Icmpv6.encode(packet, fields);
  return Icmpv6.of(encodeIp(packet, 6, ICMPV6))!;
}

Deno.test("Icmpv6.encode() writes the echo header of RFC 4443, and Ipv6.encode() its checksum", () => {
  const { packet } = message({ type: Icmpv6.EchoRequest, id: 0x0102, seq: 0x0304 }, [0xff]);
  const bytes = packet.data.subarray(40);
  equal(hex(bytes.subarray(0, 2)), "80 00");
  equal(hex(bytes.subarray(4)), "01 02 03 04 ff");
  equal(wrongChecksum(packet.data), "");
});

Deno.test("Icmpv6.encode() takes rest instead of id and seq", () => {
  const icmp = message({ type: Icmpv6.PacketTooBig, rest: 0xfffffffe });
  deepEqual([icmp.type, icmp.code, icmp.id, icmp.seq, icmp.rest], [2, 0, 0xffff, 0xfffe, 0xfffffffe]);
});

Deno.test("Icmpv6.encode() throws RangeError for a field out of range, and leaves the packet unchanged", () => {
  const packet = packetOf([1]);
  for (const wrong of [{ type: 256 }, { code: -1 }, { id: 65_536 }, { seq: 0.5 }, { rest: 2 ** 32 }]) {
    throws(() => Icmpv6.encode(packet, { type: 128, ...wrong }), RangeError);
  }
  equal(packet.length, 1);
});

Deno.test("Icmpv6.of() reads every field, also after extension headers", () => {
  const packet = packetOf([1, 2, 3]);
  Icmpv6.encode(packet, { type: Icmpv6.EchoReply, code: 1, id: 2, seq: 3 });
  packet.prepend(8);
  packet.bytes.set([ICMPV6, 0, 1, 4, 0, 0, 0, 0], packet.offset);
  const icmp = Icmpv6.of(encodeIp(packet, 6, 0))!;
  deepEqual([icmp.type, icmp.code, icmp.id, icmp.seq, icmp.rest], [129, 1, 2, 3, 0x00020003]);
  deepEqual([...icmp.payload], [1, 2, 3]);
  equal(icmp.start, packet.offset + 48);
  equal(icmp.ip, Ipv6.of(packet));
  icmp.type = Icmpv6.EchoRequest;
  equal(wrongChecksum(packet.data), "");
});

Deno.test("Icmpv6.of() returns undefined without a mark over IPv4, for another protocol and a later fragment", () => {
  const later = packetOf(new Uint8Array(16));
  later.prepend(8);
  later.bytes.set([ICMPV6, 0, 0, 8, 0, 0, 0, 1], later.offset);
  encodeIp(later, 6, 44);
  for (
    const packet of [encodeIp(packetOf(new Uint8Array(8)), 4, ICMPV6), encodeIp(packetOf([]), 6, 17), later]
  ) {
    equal(Icmpv6.of(packet), undefined);
    equal(packet.malformed, false);
  }
});

Deno.test("Icmpv6.of() returns undefined and marks a truncated header", () => {
  const packet = encodeIp(packetOf(new Uint8Array(7)), 6, ICMPV6);
  equal(Icmpv6.of(packet), undefined);
  equal(packet.malformed, true);
});

Deno.test("Icmpv6.type turns a ping into its reply with a valid checksum", () => {
  const icmp = message({ type: Icmpv6.EchoRequest }, new Uint8Array(56));
  icmp.type = Icmpv6.EchoReply;
  icmp.ip.swap();
  equal(wrongChecksum(icmp.packet.data), "");
  equal(icmp.ip.srcText, "2001:db8::2");
});

Deno.test("Icmpv6 setters leave a valid checksum after any sequence, full and partial", () => {
  const setters: ((icmp: Icmpv6, value: number) => void)[] = [
    (icmp, value) => icmp.type = value,
    (icmp, value) => icmp.code = value,
    (icmp, value) => icmp.id = value,
    (icmp, value) => icmp.seq = value,
    (icmp, value) => icmp.rest = value,
    (icmp, value) => icmp.ip.dst = new Uint8Array(16).fill(value),
    (icmp) => icmp.ip.swap(),
    (icmp) => icmp.refreshChecksum(),
  ];
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.uint8Array({ maxLength: 30 }),
      fc.array(
        fc.tuple(fc.nat(setters.length - 1), fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 0xffff))),
        {
          maxLength: 30,
        },
      ),
      (partial, payload, steps) => {
        const icmp = message({ type: 128, id: 7, seq: 1 }, payload);
        if (partial) makePartial(icmp.packet, icmp.start, CHECKSUM);
        for (const [setter, value] of steps) {
          setters[setter]!(icmp, value);
          const finished = copy(icmp.packet)[0]!;
          equal(wrongChecksum(finished), "");
          const field = icmp.start - icmp.packet.offset + CHECKSUM;
          equal(icmp.checksum, finished[field]! * 256 + finished[field + 1]!);
          equal(icmp.checksumValid, true);
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("Icmpv6.of() after Icmpv6.encode() gives back fields and payload", () => {
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

Deno.test("Icmpv6.quotedOffset and Icmpv6.quotedLength find the packet that an error quotes", () => {
  for (const type of [1, 2, 3, 4]) {
    const icmp = message({ type }, new Uint8Array(48));
    deepEqual([icmp.quotedOffset, icmp.quotedLength], [icmp.start + 8, 48]);
  }
  for (const type of [0, 5, 128, 135]) {
    const icmp = message({ type }, new Uint8Array(48));
    deepEqual([icmp.quotedOffset, icmp.quotedLength], [-1, 0]);
  }
});

Deno.test("Icmpv6.quotedLength follows RFC 4884, and never exceeds the message", () => {
  const extended = message({ type: Icmpv6.TimeExceeded, rest: 16 * 2 ** 24 }, new Uint8Array(140));
  equal(extended.quotedLength, 128);
  extended.rest = 0xff000000;
  equal(extended.quotedLength, 140);
  // Of the others' four bytes, all are the MTU or the pointer.
  equal(message({ type: Icmpv6.PacketTooBig, rest: 0x01000000 }, new Uint8Array(140)).quotedLength, 140);
});
