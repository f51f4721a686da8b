/** Packets as text, and back. */

import { equal, throws } from "node:assert/strict";
import { encodePacket, formatPacket } from "./packet_text.ts";

const LINES = [
  'udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"',
  'udp [fd00::1]:5000 > [2001:db8::1]:53 ttl 63 dscp 10 ecn 1 label 77 "a \\"b\\""',
  "tcp 10.9.0.1:5000 > 192.0.2.1:80 S seq 7 mss 1460 wscale 7 sackOK",
  "tcp [fd00::1]:5000 > [2001:db8::1]:80 PA seq 4294967295 ack 1 window 0 payload 300",
  "icmp 10.9.0.1 > 192.0.2.1 type 8 id 7 seq 1 payload 56",
  "icmp fd00::1 > 2001:db8::1 type 128 id 7 seq 1",
  'icmp 192.0.2.9 > 10.9.0.1 type 3 code 4 rest 1400 { udp 10.9.0.1:5000 > 192.0.2.1:53 "hello" }',
  "icmp 192.0.2.9 > 10.9.0.1 type 11 { udp 10.9.0.1:5000 > 192.0.2.1:53 ident 4 nodf payload 99 cut 28 }",
  "icmp fd00::9 > fd00::1 type 2 rest 1280 { tcp [fd00::1]:5000 > [fd00::2]:80 A seq 1 ack 2 payload 1400 cut 68 }",
  "ip 10.9.0.1 > 192.0.2.1 protocol 47 bytes 0a0b0c",
  "ip 10.9.0.1 > 192.0.2.1 ident 7 protocol 17 more payload 16",
  "ip 10.9.0.1 > 192.0.2.1 ident 7 offset 1480 protocol 6 payload 100",
  "ip fd00::1 > fd00::2 ident 305419896 offset 1448 protocol 17 more payload 8",
  "hex 45 00 00 14",
  "hex 00",
];

for (const line of LINES) {
  Deno.test(`formatPacket() gives back: ${line}`, () => {
    equal(sorted(formatPacket(encodePacket(line))), sorted(line));
  });
}

/** Words in any order. */
function sorted(line: string): string {
  return line.split(" ").sort().join(" ");
}

Deno.test("formatPacket() says which checksum is wrong", () => {
  const bytes = encodePacket('udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"');
  bytes[27]! ^= 1;
  equal(
    formatPacket(bytes).replace(/17: .*/, "17"),
    'udp 10.9.0.1:5000 > 192.0.2.1:53 "hello" (wrong checksum: protocol 17',
  );
});

Deno.test("encodePacket() refuses what is no packet", () => {
  for (
    const line of [
      "",
      "udp",
      "udp 10.9.0.1:1 192.0.2.1:2",
      "odd 10.9.0.1 > 192.0.2.1",
      "ip 10.9.0.1 > 192.0.2.1 x",
    ]
  ) {
    throws(() => encodePacket(line), SyntaxError);
  }
});
