/** StaticNat beyond its golden tests: any bytes, partial checksums, wrong rules. */

import { equal, ok, throws } from "node:assert/strict";
import { parseCidr } from "@warren/tunnel/address";
import type { Direction } from "@warren/tunnel/core";
import { StaticNat } from "@warren/tunnel/nat";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { makePartial, wrongChecksum } from "../../../kit/packets.ts";

const RULES = { rules: [{ inside: "10.9.0.0/16", outside: "203.0.0.0/16" }] };

Deno.test("StaticNat never throws, loses nothing, and shows no inside address, whatever comes", () => {
  const random = new Random(9);
  const inside = parseCidr("10.9.0.0/16");
  const test = new TestPipeline(new StaticNat(RULES));
  const packets = [
    [0, "udp 10.9.0.5:5000 > 192.0.2.1:53 payload 20"],
    [0, "tcp 10.9.0.5:5000 > 203.0.0.7:80 S seq 1 mss 1460"],
    [0, "icmp 10.9.0.5 > 192.0.2.1 type 3 code 3 { udp 192.0.2.1:53 > 10.9.0.5:5000 payload 20 }"],
    [0, "icmp 10.9.0.5 > 203.0.0.7 type 11 { tcp 203.0.0.7:53 > 10.9.0.5:5000 S seq 1 }"],
    [1, "icmp 192.0.2.1 > 203.0.0.5 type 11 { icmp 203.0.0.5 > 192.0.2.1 type 8 id 7 seq 1 payload 8 }"],
    [1, "tcp 192.0.2.1:80 > 203.0.0.5:5000 SA seq 1 ack 2"],
  ] as const;
  let whole = 0;
  for (let i = 0; i < 30_000; i++) {
    const [direction, text] = packets[random.below(packets.length)]!;
    let bytes = encodePacket(text);
    const isMutated = random.below(3) > 0;
    for (let n = isMutated ? random.below(4) : -1; n >= 0; n--) {
      const at = random.below(bytes.length);
      // The version stays, and what makes it an inside host's packet.
      if (at >= 12 && at < 14 || at < 1) continue;
      bytes[at] = random.below(256);
    }
    if (isMutated && random.below(3) === 0) bytes = bytes.slice(0, 1 + random.below(bytes.length));
    test.send(direction as Direction, bytes);
    if (!isMutated && (text.startsWith("udp") || text.startsWith("tcp")) && random.below(2) === 0) {
      const packet = (direction === 0 ? test.pipeline.outbound[0]! : test.pipeline.fromFar).packets[0]!;
      makePartial(packet, packet.offset + 20, text.startsWith("tcp") ? 16 : 6);
    }
    test.settle();
    const { far, device } = test.receive();
    for (const packet of far) {
      const view = new DataView(packet.buffer, packet.byteOffset);
      ok(!inside.containsIpv4(view.getUint32(12)), packet.toHex());
      const isError = packet[9] === 1 && [3, 4, 5, 11, 12].includes(packet[20]!) && view.getUint16(2) >= 48 &&
        (view.getUint16(6) & 0x1fff) === 0;
      ok(!isError || !inside.containsIpv4(view.getUint32(44)), packet.toHex());
    }
    for (const packet of isMutated ? [] : [...far, ...device]) {
      whole++;
      equal(wrongChecksum(packet), "", text);
    }
    ok(test.balanced);
  }
  ok(whole > 1000);
});

Deno.test("StaticNat refuses wrong rules", () => {
  const make = (...rules: [inside: string, outside: string][]) => () =>
    new StaticNat({ rules: rules.map(([inside, outside]) => ({ inside, outside })) });
  throws(make(["10.9.0.0/24", "203.0.113.0/25"]), TypeError);
  throws(make(["10.9.0.0/24", "203.0.113.0/24"], ["10.9.0.7", "198.51.100.1"]), TypeError);
  throws(make(["10.9.0.1", "203.0.113.1"], ["10.9.0.2", "203.0.113.1"]), TypeError);
  throws(make(["fd00::1", "203.0.113.1"]), TypeError);
  throws(make(["10.9.0", "203.0.113.1"]), SyntaxError);
  throws(
    () => new StaticNat({ rules: { inside: "10.9.0.1", outside: "203.0.113.1" } as unknown as [] }),
    /rules must be an array, got an object$/,
  );
  equal(make(["0.0.0.0/0", "0.0.0.0/0"])().name, "static nat");
});
