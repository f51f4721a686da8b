/** Nptv6 beyond its golden tests: round trips of addresses, checksums, any bytes. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { formatIpv6, parseCidr, parseIpv6 } from "@warren/tunnel/address";
import type { Direction } from "@warren/tunnel/core";
import { Nptv6 } from "@warren/tunnel/nat";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { wrongChecksum } from "../../../kit/packets.ts";

/** One's complement sum of the words of an address, by division: 0 and 0xffff are equal. */
function sumOf(address: Uint8Array): number {
  return Number(BigInt(`0x${address.toHex()}`) % 0xffffn);
}

Deno.test("Nptv6 translates there and back, by RFC 6296 section 3, and keeps the checksum of every address", () => {
  const prefixes = [
    ["fd01:203:405::/48", "2001:db8:1::/48"],
    ["fd00::/8", "3f00::/8"],
    ["fd01:203:4f0::/44", "2001:db8:a0::/44"],
    ["fd01:203:405:100::/56", "2001:db8:1:ff00::/56"],
    ["fd01:203:405:1::/64", "2001:db8:1:2::/64"],
    ["fd01:203:405:1:5::/79", "2001:db8:1:2:4::/79"],
    ["fd01:203:405:1:2:3:4::/112", "2001:db8:1:2:7:8:9::/112"],
  ];
  const random = new Random(6296);
  for (const [inside, outside] of prefixes) {
    const nat = new Nptv6({ inside: inside!, outside: outside! });
    const [from, to] = [parseCidr(inside!), parseCidr(outside!)];
    let none = 0;
    for (let i = 0; i < 2000; i++) {
      const address = from.network.bytes;
      for (let bit = from.length; bit < 128; bit++) {
        // Some words are 0xffff.
        if (random.below(2) === 0 || (i >> (bit >> 4) & 1) === 1) address[bit >> 3]! |= 0x80 >> (bit & 7);
      }
      const before = formatIpv6(address);
      const sum = sumOf(address);
      if (!nat.toOutside(address)) {
        none++;
        equal(formatIpv6(address), before, "what has no translation is left alone");
        continue;
      }
      const between = formatIpv6(address);
      ok(to.containsIpv6(address), between);
      equal(sumOf(address), sum, `${before} ${between}`);
      equal(nat.toInside(address), true);
      // Section 3.4: 0xffff is not written, but for a word that was not adjusted; the way back is the same one.
      equal(formatIpv6(address), before, between);
    }
    ok(none < 1500, `${none} of 2000 addresses have no translation`);
  }
});

Deno.test("Nptv6 gives a host of 0xffff words another identifier only where there is a word to adjust", () => {
  const nat = new Nptv6({ inside: "fd01:203:405:1::/64", outside: "2001:db8:1:2::/64" });
  equal(nat.toOutside(parseIpv6("fd01:203:405:1:ffff:ffff:ffff:ffff")), false);
  equal(nat.toOutside(parseIpv6("fd01:203:405:1:ffff:ffff:ffff:fffe")), true);
});

Deno.test("Nptv6 never throws, loses nothing, and shows no inside address, whatever comes", () => {
  const random = new Random(4);
  const inside = parseCidr("fd01:203:405::/48");
  const test = new TestPipeline(new Nptv6({ inside: "fd01:203:405::/48", outside: "2001:db8:1::/48" }));
  const [host, outer, remote] = ["fd01:203:405:1::7", "2001:db8:1:d550::7", "2001:db8:ffff::1"];
  const packets = [
    [0, `udp [${host}]:5000 > [${remote}]:53 payload 20`],
    [0, `udp [${host}]:5000 > [${outer}]:53 payload 20`],
    [0, `icmp ${host} > ${remote} type 1 { udp [${remote}]:53 > [${host}]:5000 payload 20 }`],
    [1, `tcp [${remote}]:80 > [${outer}]:5000 SA seq 1 mss 1440`],
    [1, `icmp ${remote} > ${outer} type 3 { udp [${outer}]:5000 > [${remote}]:53 payload 20 }`],
    [0, `ip ${host} > ${remote} protocol 17 ident 7 offset 24 bytes 0a0b0c`],
  ] as const;
  let whole = 0;
  for (let i = 0; i < 20_000; i++) {
    const [direction, text] = packets[random.below(packets.length)]!;
    let bytes = encodePacket(text);
    const isMutated = random.below(3) > 0;
    for (let n = isMutated ? random.below(4) : -1; n >= 0; n--) {
      const at = random.below(bytes.length);
      // Versions stay, and what makes it an inside host's packet.
      if (at >= 8 && at < 14 || at < 1 || at === 48) continue;
      bytes[at] = random.below(256);
    }
    if (isMutated && random.below(3) === 0) bytes = bytes.slice(0, 1 + random.below(bytes.length));
    test.send(direction as Direction, bytes);
    test.settle();
    const { far, device } = test.receive();
    for (const packet of far) {
      ok(!inside.containsIpv6(packet, 8), packet.toHex());
      const isError = packet[6] === 58 && [1, 2, 3, 4].includes(packet[40]!) && packet.length >= 88 &&
        packet[48]! >> 4 === 6;
      ok(!isError || !inside.containsIpv6(packet, 72), packet.toHex());
    }
    for (const packet of isMutated || text.startsWith("ip") ? [] : [...far, ...device]) {
      whole++;
      equal(wrongChecksum(packet), "", text);
    }
    ok(test.balanced);
  }
  ok(whole > 1000);
});

Deno.test("Nptv6 refuses wrong prefixes", () => {
  const make = (inside: string, outside: string) => () => new Nptv6({ inside, outside });
  throws(make("fd00::/48", "2001:db8::/64"), TypeError);
  throws(make("10.0.0.0/8", "2001:db8::/64"), TypeError);
  throws(make("fd00::/113", "2001:db8::/113"), RangeError);
  throws(make("::/0", "::/0"), RangeError);
  throws(make("fd00::", "2001:db8::/64"), SyntaxError);
  deepEqual(make("fd00::/112", "2001:db8::/112")().name, "nptv6");
});
