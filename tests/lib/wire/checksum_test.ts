/** The Internet checksum against the RFC's own loop, and the fields that it guards. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  adjust,
  checksum,
  difference,
  difference32,
  finishChecksum,
  sum,
  update,
} from "../../../lib/core/checksum.ts";
import {
  adjustPseudoHeader,
  adjustTransport,
  coveredLength,
  isPartial,
  pseudoHeaderSumIpv4,
  pseudoHeaderSumIpv6,
  transportChecksum,
  writeTransportChecksum,
} from "../../../lib/wire/transport_checksum.ts";
import { type Packet, PacketPool } from "../../../lib/core/mod.ts";
import { copy } from "../../../lib/split/copy.ts";
import { plainSum, refill } from "../../kit/packets.ts";

const SEED = { seed: 1071, numRuns: 2000 };
const TCP = 6;
const UDP = 17;
const ICMPV4 = 1;
const ICMPV6 = 58;
const UDP_LITE = 136;
const DCCP = 33;

/** Offset of the checksum in a protocol's header, by its RFC; -1 for an unknown protocol. */
function checksumField(protocol: number): number {
  const fields: Record<number, number> = {
    [TCP]: 16,
    [UDP]: 6,
    [UDP_LITE]: 6,
    [DCCP]: 6,
    [ICMPV4]: 2,
    [ICMPV6]: 2,
  };
  return fields[protocol] ?? -1;
}

const pool = new PacketPool({ small: 1, large: 0 });

/** A packet of these bytes, in memory that is 0xa5 elsewhere. */
function packetOf(bytes: Uint8Array): Packet {
  return refill(pool.packets[0]!, bytes);
}

/** The same packet with a partial checksum of the transport header at `start`. */
function partialPacketOf(bytes: Uint8Array, start: number, protocol: number): Packet {
  const packet = packetOf(bytes);
  packet.checksumStart = start;
  packet.checksumOffset = checksumField(protocol);
  return packet;
}

const anyBytes = fc.uint8Array({ minLength: 40, maxLength: 90 });
const anyProtocol = fc.constantFrom(TCP, UDP, UDP_LITE, DCCP, ICMPV4, ICMPV6, 41, 255);

Deno.test("sum() gives RFC 1071 section 3's example in both halves and with an odd byte", () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assert.equal(sum(bytes, 0, 8), 0xddf2);
  assert.equal(checksum(bytes, 0, 8), 0x220d);
  assert.equal(sum(bytes, 4, 4, sum(bytes, 0, 4)), 0xddf2);
  assert.equal(sum(bytes, 0, 7), 0xddf2 - 0xf7);
});

Deno.test("sum() agrees with the RFC's loop at every length up to 100 and every alignment", () => {
  const bytes = Uint8Array.from({ length: 120 }, (_, i) => i * 151 + 7);
  for (let start = 0; start < 17; start++) {
    for (let length = 0; length <= 100; length++) {
      assert.equal(sum(bytes, start, length), plainSum(bytes.subarray(start, start + length)));
    }
  }
});

Deno.test("sum() agrees with the RFC's loop on any bytes, in memory that is a part of another", () => {
  const anyMemory = fc.uint8Array({ maxLength: 1500 });
  fc.assert(
    fc.property(anyMemory, fc.nat(9), fc.nat(9), fc.nat(0xffff), (data, before, start, initial) => {
      const memory = new Uint8Array(before + start + data.length + 3).fill(0xa5);
      memory.set(data, before + start);
      const bytes = memory.subarray(before);
      const initialBytes = [initial >> 8, initial & 255];
      assert.equal(sum(bytes, start, data.length, initial), plainSum([...initialBytes, ...data]));
      assert.equal(sum(bytes, start, data.length), plainSum(data));
    }),
    { ...SEED, numRuns: 300 },
  );
});

Deno.test("sum() does not overflow on the longest packet of the highest bytes", () => {
  const bytes = new Uint8Array(65_535).fill(0xff);
  assert.equal(sum(bytes, 0, 65_534, 0xffffffff), 0xffff);
  assert.equal(sum(bytes, 0, 65_535), 0xff00);
  assert.equal(sum(new Uint8Array(256 * 1024).fill(0xff), 0, 256 * 1024), 0xffff);
});

Deno.test("sum() reads shared memory", () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(40)).fill(1);
  assert.equal(sum(bytes, 1, 38), 19 * 0x0101);
});

Deno.test("sum() throws RangeError rather than read beyond the memory", () => {
  assert.throws(() => sum(new Uint8Array(8), 0, 9), RangeError);
  assert.throws(() => sum(new Uint8Array(8), -1, 2), RangeError);
});

Deno.test("update() gives RFC 1624 section 4's example", () => {
  assert.equal(update(0xdd2f, 0x5555, 0x3285), 0x0000);
});

Deno.test("update() and adjust() agree with a new sum after any changes", () => {
  const anyWords = fc.uint8Array({ minLength: 22, maxLength: 60 }).filter((bytes) => bytes.length % 2 === 0);
  const anyChanges = fc.array(fc.tuple(fc.nat(8), fc.nat(0xffffffff)), { maxLength: 20 });
  fc.assert(
    fc.property(anyWords, anyChanges, (bytes, changes) => {
      const view = new DataView(bytes.buffer);
      bytes[20] = 1; // a header is never all zeros
      let single = ~plainSum(bytes) & 0xffff;
      let double = single;
      for (const [word, value] of changes) {
        const at = word * 2;
        const before = view.getUint32(at);
        view.setUint32(at, value);
        single = update(single, before >>> 16, value >>> 16);
        single = update(single, before & 0xffff, value & 0xffff);
        double = adjust(double, difference32(before, value));
        assert.equal(single, ~plainSum(bytes) & 0xffff);
        assert.equal(double, single);
      }
    }),
    SEED,
  );
});

Deno.test("pseudoHeaderSumIpv4() and pseudoHeaderSumIpv6() sum the headers as the RFCs draw them", () => {
  const word = (
    value: number,
  ): number[] => [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 50, maxLength: 50 }),
      fc.nat(0xffffffff),
      fc.nat(0xffffffff),
      fc.nat(255),
      fc.nat(65_535),
      (bytes, src, dst, protocol, length) => {
        assert.equal(
          pseudoHeaderSumIpv4(src, dst, protocol, length),
          plainSum([...word(src), ...word(dst), 0, protocol, length >> 8, length & 255]),
        );
        assert.equal(
          pseudoHeaderSumIpv6(bytes, 3, 30, protocol, length),
          plainSum([...bytes.subarray(3, 19), ...bytes.subarray(30, 46), ...word(length), 0, 0, 0, protocol]),
        );
      },
    ),
    SEED,
  );
});

Deno.test("finishChecksum() includes the pseudo-header's sum in the field", () => {
  fc.assert(
    fc.property(anyBytes, fc.nat(20), fc.constantFrom(2, 6, 16), (bytes, start, offset) => {
      const finished = bytes.slice();
      finishChecksum(finished, 0, finished.length, start, offset);
      const view = new DataView(finished.buffer);
      const right = ~plainSum(bytes.subarray(start)) & 0xffff;
      assert.equal(view.getUint16(start + offset), right === 0 ? 0xffff : right);
      finished.set(bytes.subarray(start + offset, start + offset + 2), start + offset);
      assert.deepEqual(finished, bytes);
    }),
    SEED,
  );
});

Deno.test("finishChecksum() writes a checksum of 0 as 0xffff, which is valid for every protocol", () => {
  for (const field of [6, 16]) {
    const bytes = new Uint8Array(20);
    bytes[0] = bytes[1] = 0xff;
    finishChecksum(bytes, 0, bytes.length, 0, field);
    assert.deepEqual([bytes[field], bytes[field + 1]], [0xff, 0xff]);
    assert.equal(plainSum(bytes), 0xffff);
  }
});

Deno.test("finishChecksum() leaves a field beyond the end unchanged", () => {
  for (
    const [start, offset] of [[15, 6], [19, 0], [20, 0], [30, 6], [-4, 6], [0, -2], [0, 65_535]] as const
  ) {
    const bytes = new Uint8Array(20).fill(0xa5);
    finishChecksum(bytes, 0, bytes.length, start, offset);
    assert.deepEqual(bytes, new Uint8Array(20).fill(0xa5));
  }
});

Deno.test("copy() completes partial checksums", () => {
  const bytes = Uint8Array.from({ length: 40 }, (_, i) => i);
  const packet = partialPacketOf(bytes, 20, UDP);
  const [finished] = copy(packet);
  assert.equal(new DataView(finished!.buffer).getUint16(26), ~plainSum(bytes.subarray(20)) & 0xffff);
  assert.deepEqual(packet.data, bytes);
});

Deno.test("adjustPseudoHeader() and adjustTransport() leave UDP without a checksum unchanged", () => {
  const packet = packetOf(new Uint8Array(30));
  adjustPseudoHeader(packet, packet.offset, packet.offset + 30, UDP, difference(1, 2));
  adjustTransport(packet, packet.offset, packet.offset + 30, UDP, difference(1, 2));
  assert.deepEqual(packet.data, new Uint8Array(30));
});

Deno.test("adjustPseudoHeader() and adjustTransport() write UDP's result of 0 as 0xffff, TCP's as 0", () => {
  for (const adjustField of [adjustPseudoHeader, adjustTransport]) {
    for (
      const [protocol, field, result] of [[UDP, 6, 0xffff], [UDP_LITE, 6, 0xffff], [TCP, 16, 0]] as const
    ) {
      const packet = packetOf(new Uint8Array(30));
      packet.view.setUint16(packet.offset + field, 0x0001);
      adjustField(packet, packet.offset, packet.offset + 30, protocol, difference(0x1000, 0x1001));
      assert.equal(packet.view.getUint16(packet.offset + field), result);
    }
  }
});

Deno.test("adjustPseudoHeader() leaves ICMPv4, which has no pseudo-header, unchanged; adjustTransport() does not", () => {
  const packet = packetOf(new Uint8Array(30).fill(7));
  adjustPseudoHeader(packet, packet.offset, packet.offset + 30, ICMPV4, difference(1, 2));
  assert.equal(packet.view.getUint16(packet.offset + 2), 0x0707);
  adjustTransport(packet, packet.offset, packet.offset + 30, ICMPV4, difference(1, 2));
  assert.equal(packet.view.getUint16(packet.offset + 2), 0x0706);
});

Deno.test("adjustPseudoHeader() updates a partial checksum uncomplemented, adjustTransport() not at all", () => {
  const packet = partialPacketOf(new Uint8Array(40).fill(7), 20, TCP);
  const start = packet.offset + 20;
  adjustTransport(packet, start, start + 20, TCP, difference(1, 2));
  assert.equal(packet.view.getUint16(start + 16), 0x0707);
  adjustPseudoHeader(packet, start, start + 20, TCP, difference(1, 2));
  assert.equal(packet.view.getUint16(start + 16), 0x0708);
});

Deno.test("isPartial() is true for the transport header of the packet's partial checksum only", () => {
  const packet = partialPacketOf(new Uint8Array(60), 40, TCP);
  assert.equal(isPartial(packet, packet.offset + 40), true);
  assert.equal(isPartial(packet, packet.offset + 20), false);
  packet.checksumStart = 0;
  assert.equal(isPartial(packet, packet.offset), false);
});

Deno.test("transportChecksum() gives the complete value of a partial checksum, otherwise the stored one", () => {
  fc.assert(
    fc.property(anyBytes, fc.constantFrom(TCP, UDP, ICMPV6), fc.nat(20), (bytes, protocol, start) => {
      const packet = partialPacketOf(bytes, start, protocol);
      const at = packet.offset + start;
      const end = packet.offset + bytes.length;
      const stored = packet.view.getUint16(at + checksumField(protocol));
      if (start > 0) {
        const [finished] = copy(packet);
        const field = start + checksumField(protocol);
        const value = new DataView(finished!.buffer).getUint16(field);
        assert.equal(transportChecksum(packet, at, end, protocol), value);
      }
      packet.checksumStart = 0;
      assert.equal(transportChecksum(packet, at, end, protocol), stored);
    }),
    SEED,
  );
});

Deno.test("writeTransportChecksum() makes the sum over pseudo-header and payload 0xffff", () => {
  fc.assert(
    fc.property(
      anyBytes,
      fc.constantFrom(TCP, UDP, ICMPV4, ICMPV6),
      fc.nat(0xffff),
      (bytes, protocol, pseudo) => {
        const packet = packetOf(bytes);
        writeTransportChecksum(packet, packet.offset, packet.offset + bytes.length, protocol, pseudo);
        assert.equal(plainSum([pseudo >> 8, pseudo & 255, ...packet.data]), 0xffff);
        const field = packet.offset + checksumField(protocol);
        if (protocol === UDP) assert.notEqual(packet.view.getUint16(field), 0);
      },
    ),
    SEED,
  );
});

Deno.test("writeTransportChecksum() takes the partial checksum of an inner packet as complete", () => {
  fc.assert(
    fc.property(
      anyBytes,
      fc.integer({ min: 8, max: 20 }),
      fc.constantFrom(TCP, UDP),
      (bytes, inner, protocol) => {
        const packet = partialPacketOf(bytes, inner, protocol);
        writeTransportChecksum(packet, packet.offset, packet.offset + bytes.length, UDP, 0x1234);
        assert.equal(packet.checksumStart, inner);
        const [finished] = copy(packet);
        assert.equal(plainSum([0x12, 0x34, ...finished!]), 0xffff);
      },
    ),
    SEED,
  );
});

Deno.test("coveredLength() uses UDP's length field if it is plausible", () => {
  const packet = packetOf(new Uint8Array(40));
  const start = packet.offset;
  for (
    const [stated, covered] of [[0, 40], [7, 40], [8, 8], [39, 39], [40, 40], [41, 40], [65_535, 40]] as const
  ) {
    packet.view.setUint16(start + 4, stated);
    assert.equal(coveredLength(packet, start, start + 40, UDP), covered);
    assert.equal(coveredLength(packet, start, start + 40, TCP), 40);
  }
  assert.equal(coveredLength(packet, start, start + 7, UDP), 7);
});

Deno.test("Transport checksum updates never throw, and write only the field", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 40 }),
      anyProtocol,
      fc.nat(60),
      fc.nat(70_000),
      fc.nat(0xffff),
      (bytes, protocol, checksumStart, checksumOffset, word) => {
        const packet = packetOf(bytes);
        packet.checksumStart = checksumStart;
        packet.checksumOffset = checksumOffset;
        for (let start = packet.offset; start <= packet.offset + bytes.length; start += 3) {
          const end = packet.offset + bytes.length;
          const field = checksumField(protocol);
          const memory = pool.bytes.slice();
          adjustPseudoHeader(packet, start, end, protocol, difference(1, word));
          adjustTransport(packet, start, end, protocol, difference(1, word));
          transportChecksum(packet, start, end, protocol);
          coveredLength(packet, start, end, protocol);
          writeTransportChecksum(packet, start, end, protocol, word);
          if (field >= 0 && start + field + 2 <= end) {
            memory.set(pool.bytes.subarray(start + field, start + field + 2), start + field);
          }
          assert.deepEqual(pool.bytes, memory);
        }
        copy(packet);
      },
    ),
    { ...SEED, numRuns: 500 },
  );
});
