/** Tests of lib/wire/tcp.ts. */

import { Ipv4 } from "@warren/tunnel/ipv4";
import { Tcp, type TcpFields } from "@warren/tunnel/tcp";
import fc from "fast-check";
import { deepEqual, equal, throws } from "node:assert/strict";
import { encodeIp, hex, makePartial, packetOf, wrongChecksum } from "../../kit/packets.ts";
import { copy } from "../../../lib/split/copy.ts";

const TCP = 6;
const CHECKSUM = 16;
const ALL_OPTIONS = {
  mss: 1460,
  sackPermitted: true,
  timestamps: { tsval: 1, tsecr: 0xfffffffe },
  windowScale: 7,
};

function segment(version: 4 | 6, fields: Partial<TcpFields> = {}, payload: ArrayLike<number> = []): Tcp {
  const packet = packetOf(Uint8Array.from(payload));
  Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Ack, ...fields });
  return Tcp.of(encodeIp(packet, version, TCP))!;
}

function withOptions(options: readonly number[]): Tcp {
  return segment(4, { options: Uint8Array.from(options) });
}

Deno.test("Tcp.encode() writes the header of RFC 9293 section 3.1", () => {
  const { packet } = segment(4, {
    seq: 0x01020304,
    ack: 0x05060708,
    flags: 0x5a,
    window: 0x1234,
    urgentPointer: 9,
  });
  const bytes = packet.data.subarray(20);
  equal(hex(bytes.subarray(0, 16)), "13 88 00 50 01 02 03 04 05 06 07 08 50 5a 12 34");
  equal(hex(bytes.subarray(18)), "00 09");
  equal(wrongChecksum(packet.data), "");
});

Deno.test("Tcp.encode() lays options out in words of 4 bytes", () => {
  const optionsOf = (options: TcpFields["options"]): string => {
    const tcp = segment(4, { options: options! });
    return hex(tcp.packet.bytes.subarray(tcp.optionsOffset, tcp.payloadOffset));
  };
  equal(
    optionsOf(ALL_OPTIONS),
    "02 04 05 b4 04 02 08 0a 00 00 00 01 ff ff ff fe 01 03 03 07",
  );
  equal(optionsOf({ mss: 536 }), "02 04 02 18");
  equal(optionsOf({ sackPermitted: true }), "04 02 01 01");
  equal(optionsOf({ timestamps: { tsval: 1, tsecr: 2 } }), "01 01 08 0a 00 00 00 01 00 00 00 02");
  equal(optionsOf({}), "");
  equal(optionsOf(Uint8Array.of(3, 3, 1, 1, 1)), "03 03 01 01 01 00 00 00");
});

Deno.test("Tcp.encode() throws RangeError for a field out of range, and leaves the packet unchanged", () => {
  const packet = packetOf([1]);
  const right = { srcPort: 1, dstPort: 2, seq: 3, flags: 0 };
  const wrong: Partial<TcpFields>[] = [
    { srcPort: 65_536 },
    { dstPort: -1 },
    { seq: 2 ** 32 },
    { ack: 0.5 },
    { flags: 256 },
    { window: 65_536 },
    { urgentPointer: NaN },
    { options: { mss: 65_536 } },
    { options: { windowScale: 15 } },
    { options: { timestamps: { tsval: -1, tsecr: 0 } } },
    { options: new Uint8Array(41) },
  ];
  for (const fields of wrong) throws(() => Tcp.encode(packet, { ...right, ...fields }), RangeError);
  equal(packet.length, 1);
});

Deno.test("Tcp.of() reads every field and option over IPv4 and IPv6", () => {
  for (const version of [4, 6] as const) {
    const fields = {
      seq: 0xfffffffe,
      ack: 0x80000000,
      flags: Tcp.Syn | Tcp.Ack,
      window: 512,
      options: ALL_OPTIONS,
    };
    const tcp = segment(version, fields, [1, 2, 3]);
    deepEqual(
      [
        tcp.srcPort,
        tcp.dstPort,
        tcp.seq,
        tcp.ack,
        tcp.headerLength,
        tcp.flags,
        tcp.window,
        tcp.urgentPointer,
      ],
      [5000, 80, 0xfffffffe, 0x80000000, 40, 0x12, 512, 0],
    );
    deepEqual(
      [tcp.mss, tcp.windowScale, tcp.sackPermitted, tcp.tsval, tcp.tsecr],
      [1460, 7, true, 1, 0xfffffffe],
    );
    deepEqual([...tcp.payload], [1, 2, 3]);
    deepEqual([tcp.payloadLength, tcp.checksumValid, tcp.ip.version], [3, true, version]);
  }
});

Deno.test("Tcp.isFin to Tcp.isCwr each look at their own flag", () => {
  for (let bit = 0; bit < 8; bit++) {
    const tcp = segment(4, { flags: 1 << bit });
    const { isFin, isSyn, isRst, isPsh, isAck, isUrg, isEce, isCwr } = tcp;
    deepEqual(
      [isFin, isSyn, isRst, isPsh, isAck, isUrg, isEce, isCwr].map(Number),
      Array.from({ length: 8 }, (_, i) => Number(i === bit)),
    );
  }
});

Deno.test("Tcp.of() returns undefined without a mark for another protocol and a later fragment", () => {
  const other = encodeIp(packetOf(new Uint8Array(20)), 4, 17);
  equal(Tcp.of(other), undefined);
  const later = segment(4).packet;
  Ipv4.of(later)!.fragmentOffset = 8;
  equal(Tcp.of(later), undefined);
  equal(other.malformed || later.malformed, false);
});

Deno.test("Tcp.of() returns undefined and marks a truncated header or inconsistent data offset", () => {
  const short = encodeIp(packetOf(new Uint8Array(19)), 4, TCP);
  equal(Tcp.of(short), undefined);
  equal(short.malformed, true);
  for (const words of [0, 4, 6, 15]) {
    const { packet, start } = segment(6);
    packet.bytes[start + 12] = words << 4;
    equal(Tcp.of(packet), undefined, `${words}`);
    equal(packet.malformed, true);
  }
});

Deno.test("Tcp.option() finds the first option of a kind, NOP and END included", () => {
  const tcp = withOptions([1, 2, 4, 1, 2, 2, 4, 3, 4, 0, 3, 3]);
  const found = (kind: number): number => tcp.option(kind) < 0 ? -1 : tcp.option(kind) - tcp.optionsOffset;
  deepEqual([found(1), found(2), found(0)], [0, 1, 9]);
  // No options follow the end of options.
  equal(found(3), -1);
  equal(tcp.mss, 0x0102);
});

Deno.test("Tcp.option() stops at a length of 0 or 1, or one beyond the header", () => {
  for (
    const options of [[99, 0, 2, 4, 5, 180], [99, 1, 2, 4, 5, 180], [99, 20, 2, 4, 5, 180], [1, 1, 1, 2]]
  ) {
    const tcp = withOptions(options);
    equal(tcp.option(99), -1);
    equal(tcp.option(2), -1);
    equal(tcp.mss, undefined);
    tcp.mss = 9;
    equal(tcp.tsval, undefined);
  }
});

Deno.test("Tcp option getters refuse an option of the wrong length", () => {
  const tcp = withOptions([2, 3, 1, 3, 4, 1, 1, 4, 3, 1, 8, 3, 1]);
  deepEqual(
    [tcp.mss, tcp.windowScale, tcp.sackPermitted, tcp.tsval, tcp.tsecr],
    [undefined, undefined, false, undefined, undefined],
  );
  equal(tcp.option(2), tcp.optionsOffset);
});

Deno.test("Tcp option setters do nothing without the option", () => {
  const tcp = segment(4, {}, [2, 4, 0, 0]);
  const before = hex(tcp.packet.data);
  tcp.mss = 1;
  tcp.tsval = 2;
  tcp.tsecr = 3;
  equal(hex(tcp.packet.data), before);
});

Deno.test("Tcp.flags keeps the reserved bits beside it", () => {
  const tcp = segment(4);
  tcp.packet.bytes[tcp.start + 12]! |= 0x0e;
  tcp.refreshChecksum();
  tcp.flags = 0x1ff;
  equal(tcp.flags, 0xff);
  equal(tcp.packet.bytes[tcp.start + 12], 0x5e);
  equal(wrongChecksum(tcp.packet.data), "");
});

Deno.test("Tcp.of() after Tcp.encode() gives back fields, options and payload", () => {
  const word = fc.nat(0xffffffff);
  const half = fc.nat(0xffff);
  fc.assert(fc.property(
    fc.constantFrom(4 as const, 6 as const),
    fc.record({
      srcPort: half,
      dstPort: half,
      seq: word,
      ack: word,
      flags: fc.nat(0xff),
      window: half,
      urgentPointer: half,
      options: fc.record({
        mss: half,
        windowScale: fc.nat(14),
        sackPermitted: fc.boolean(),
        timestamps: fc.record({ tsval: word, tsecr: word }),
      }, { requiredKeys: [] }),
    }),
    fc.uint8Array({ maxLength: 100 }),
    (version, fields, payload) => {
      const tcp = segment(version, fields, payload);
      const { options, ...header } = fields;
      const { srcPort, dstPort, seq, ack, flags, window, urgentPointer } = tcp;
      deepEqual({ srcPort, dstPort, seq, ack, flags, window, urgentPointer }, header);
      deepEqual(
        [tcp.mss, tcp.windowScale, tcp.sackPermitted, tcp.tsval, tcp.tsecr],
        [
          options.mss,
          options.windowScale,
          options.sackPermitted ?? false,
          options.timestamps?.tsval,
          options.timestamps?.tsecr,
        ],
      );
      deepEqual([...tcp.payload], [...payload]);
      equal(wrongChecksum(tcp.packet.data), "");
    },
  ));
});

Deno.test("Tcp setters leave a valid checksum after any sequence, at odd offsets, full and partial", () => {
  const setters: ((tcp: Tcp, value: number) => void)[] = [
    (tcp, value) => tcp.srcPort = value,
    (tcp, value) => tcp.dstPort = value,
    (tcp, value) => tcp.seq = value,
    (tcp, value) => tcp.ack = value,
    (tcp, value) => tcp.flags = value,
    (tcp, value) => tcp.window = value,
    (tcp, value) => tcp.urgentPointer = value,
    (tcp, value) => {
      tcp.mss = value;
      equal(tcp.mss, value & 0xffff);
    },
    (tcp, value) => {
      tcp.tsval = value;
      equal(tcp.tsval, value);
    },
    (tcp, value) => {
      tcp.tsecr = value;
      equal(tcp.tsecr, value);
    },
    (tcp) => tcp.swapPorts(),
    (tcp) => tcp.ip.swap(),
    (tcp) => tcp.refreshChecksum(),
  ];
  const even = [2, 4, 0, 0, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
  const odd = [1, 2, 4, 0, 0, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.boolean(),
      fc.constantFrom(even, odd),
      fc.uint8Array({ maxLength: 30 }),
      fc.array(
        fc.tuple(fc.nat(setters.length - 1), fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 0xffff))),
        {
          maxLength: 30,
        },
      ),
      (version, partial, options, payload, steps) => {
        const tcp = segment(version, { options: Uint8Array.from(options) }, payload);
        if (partial) makePartial(tcp.packet, tcp.start, CHECKSUM);
        for (const [setter, value] of steps) {
          setters[setter]!(tcp, value);
          const finished = copy(tcp.packet)[0]!;
          equal(wrongChecksum(finished), "");
          const field = tcp.start - tcp.packet.offset + CHECKSUM;
          equal(tcp.checksum, finished[field]! * 256 + finished[field + 1]!);
          equal(tcp.checksumValid, true);
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("Tcp.refreshChecksum() makes the checksum valid after a direct change of the payload", () => {
  const tcp = segment(6, {}, [1, 2, 3]);
  tcp.packet.bytes[tcp.payloadOffset + 2] = 9;
  equal(tcp.checksumValid, false);
  tcp.refreshChecksum();
  equal(tcp.checksumValid, true);
  equal(wrongChecksum(tcp.packet.data), "");
});
