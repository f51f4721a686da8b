/** Filters: what they match, where they refuse, and any text and any bytes at all. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, type Packet, PacketPool } from "@warren/tunnel/core";
import { compileFilter, FILTER_HELP } from "@warren/tunnel/filter";
import { encodePacket } from "../../kit/packet_text.ts";
import { Random } from "../../../lib/core/random.ts";
import { EXPRESSIONS, randomExpression, REFUSED } from "./_expressions.ts";
import { filterPackets } from "./_packets.ts";

const SEED = 0xf117;
const MAX_TEXT = 65_536;
const MAX_SIZE = 32_768;
const MAX_DEPTH = 64;

const PACKETS = {
  web: "tcp 10.9.0.1:5000 > 192.0.2.1:80 S seq 7 mss 1460",
  answer: "tcp 192.0.2.1:80 > 10.9.0.1:5000 SA seq 1 ack 8 payload 100",
  query: 'udp 10.9.0.1:5000 > 192.0.2.53:53 "hello"',
  ping: "icmp 10.9.0.2 > 192.0.2.1 type 8 id 7 seq 1 payload 56",
  first: "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 more bytes 13880035000d0000",
  later: "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 offset 24 bytes 13880035000d0000",
  web6: "tcp [fd09::1]:5000 > [2001:db8::1]:80 A payload 10",
  ping6: "icmp fd09::1 > 2001:db8::1 type 128 id 7 seq 1 payload 8",
  first6: "ip fd09::1 > 2001:db8::1 protocol 17 ident 7 more bytes 13880035000d0000",
};
type Name = keyof typeof PACKETS;

function packetOf(bytes: Uint8Array): Packet {
  const packet = new PacketPool().take(1)!;
  packet.bytes.set(bytes, packet.offset);
  packet.length = bytes.length;
  return packet;
}

const NAMED = Object.entries(PACKETS).map(([name, text]) => [name, packetOf(encodePacket(text))] as const);

/** Asserts which of the packets a filter matches. */
function matches(expression: string, ...names: Name[]): void {
  const filter = compileFilter(expression);
  const matched = NAMED.filter(([, packet]) => filter(packet)).map(([name]) => name);
  deepEqual(matched, names, expression);
}

/** Asserts that a filter refuses with this reason at this column. */
function refuses(expression: string, reason: string, column: number): void {
  throws(() => compileFilter(expression), (error: Error) => {
    ok(error instanceof SyntaxError, expression);
    ok(error.message.includes(`: ${reason}`), `${expression}: ${error.message}`);
    ok(error.message.endsWith(` at column ${column}`), `${expression}: ${error.message}`);
    return true;
  });
}

Deno.test("compileFilter() of nothing matches every packet", () => {
  matches("", ...NAMED.map(([name]) => name as Name));
  matches(" \n", ...NAMED.map(([name]) => name as Name));
});

Deno.test("compileFilter() knows the protocols, over IPv6 also after a fragment header", () => {
  matches("tcp", "web", "answer", "web6");
  matches("udp", "query", "first", "later", "first6");
  matches("icmp", "ping");
  matches("icmp6", "ping6");
  matches("ip6", "web6", "ping6", "first6");
  matches("proto \\udp and not ip", "first6");
  matches("ip6 proto 44", "first6");
});

Deno.test("compileFilter() compares addresses and networks with either side", () => {
  matches("host 10.9.0.2", "ping");
  matches("src host 192.0.2.1", "answer");
  matches("dst net 192.0.2.0/27 and tcp", "web");
  matches("src or dst host 192.0.2.53", "query");
  matches("src and dst net 10");
  matches("net 192.0.2.32/27", "query");
  matches("net 192.0.2 mask 255.255.255.0 and icmp", "ping");
  matches("net fd00::/8", "web6", "ping6", "first6");
  matches("dst net fd00::/8");
  matches("src host fd09::1 and tcp", "web6");
  matches("net 0.0.0.0/0 and tcp", "web", "answer");
});

Deno.test("compileFilter() finds no ports in later fragments, or after a fragment header", () => {
  matches("port 53", "query", "first");
  matches("dst port 53", "query", "first");
  matches("src port 53");
  matches("src and dst port 53");
  matches("portrange 50-90", "web", "answer", "query", "first", "web6");
  matches("src portrange 50-90", "answer");
});

Deno.test("compileFilter() applies earlier words to a bare number", () => {
  matches("tcp port 80 or 53", "web", "answer", "web6");
  matches("port (80 or 53) and not host 192.0.2.53", "web", "answer", "first", "web6");
  matches("tcp src port 80 or udp dst port 80 or 53", "answer", "query", "first");
  matches("tcp port 53 or (udp port 80) or 80", "web", "answer", "web6");
});

Deno.test('compileFilter() gives "and" and "or" equal precedence, from left to right', () => {
  matches("icmp or tcp and ip6", "web6");
  matches("ip6 and tcp or icmp", "ping", "web6");
  matches("not tcp and ip6", "ping6", "first6");
});

Deno.test("compileFilter() reads bytes by number and by name", () => {
  matches("tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn", "web");
  matches("icmp[icmptype] = icmp-echo", "ping");
  matches("icmp6[icmp6type] == icmp6-echo", "ping6");
  matches("udp[2:2] = 53", "query", "first");
  matches("ip[6:2] & 0x1fff != 0", "later");
  matches("len != ip[2:2] and ip");
});

Deno.test("compileFilter() computes in unsigned 32 bits", () => {
  for (
    const sum of [
      "3 - 5 = 0xfffffffe",
      "- 1 > 5",
      "0xffffffff * 0xffffffff = 1",
      "0xfffffffe / 2 = 0x7fffffff",
      "0xffffffff % 10 = 5",
      "1 << 31 > 1",
      "1 << len < 2",
      "0xffffffff >> 31 = 1",
      "010 = 8",
      "1 + 2 * 3 = 7",
      "5 % 3 + 1 = 1",
    ]
  ) {
    ok(compileFilter(sum)(packetOf(new Uint8Array(100))), sum);
    ok(!compileFilter(`not ${sum}`)(packetOf(new Uint8Array(100))), sum);
  }
});

Deno.test("compileFilter() is false as a whole after a read beyond the packet or a division by zero", () => {
  const cut = packetOf(encodePacket(PACKETS.web).subarray(0, 20));
  ok(compileFilter("ip[19] > 0")(cut));
  for (
    const failing of [
      "ip[20] = 0",
      "ip[19:2] = 0",
      "ip[17:4] = 0",
      "tcp[0] = 0",
      "port 80",
      "ip[0xffffffff] = 0",
    ]
  ) {
    ok(!compileFilter(failing)(cut), failing);
    ok(!compileFilter(`not ${failing}`)(cut), failing);
    ok(!compileFilter(`${failing} or ip`)(cut), failing);
    ok(compileFilter(`ip or ${failing}`)(cut), failing);
  }
  for (const failing of ["len / (len - 20) = 1", "len % (len - 20) = 1"]) {
    ok(!compileFilter(`not ${failing}`)(cut), failing);
  }
  const none = packetOf(new Uint8Array());
  ok(!compileFilter("not ip")(none));
  ok(compileFilter("len = 0 or ip")(none));
});

Deno.test("compileFilter() tests packets independently after a failed read", () => {
  const filter = compileFilter("tcp[13] & 2 != 0");
  const web = packetOf(encodePacket(PACKETS.web));
  const cut = packetOf(encodePacket(PACKETS.web).subarray(0, 30));
  deepEqual([web, cut, web].map((packet) => filter(packet)), [true, false, true]);
});

Deno.test("compileFilter() tests the direction, and matches neither without one", () => {
  const packet = packetOf(encodePacket(PACKETS.web));
  const filter = compileFilter("inbound and tcp");
  deepEqual([filter(packet, Direction.Inbound), filter(packet, Direction.Outbound), filter(packet)], [
    true,
    false,
    false,
  ]);
  const other = compileFilter("outbound");
  deepEqual([other(packet, Direction.Inbound), other(packet, Direction.Outbound), other(packet)], [
    false,
    true,
    false,
  ]);
});

Deno.test("compileFilter() tests super-packets and partial checksums as they are", () => {
  const packet = packetOf(encodePacket(PACKETS.answer));
  packet.segmentSize = 10;
  packet.checksumStart = 20;
  packet.checksumOffset = 16;
  ok(compileFilter(`len = ${packet.length} and tcp src port 80`)(packet));
  equal(packet.checksumStart, 20);
});

Deno.test("compileFilter() reports the reason and the column of an error", () => {
  refuses("tcp prot 80", 'unexpected "prot"', 5);
  refuses("host example.org", 'host must be an address, since names are not resolved, got "example.org"', 6);
  refuses("tcp and ether host 1", '"ether" does not apply to IP packets', 9);
  refuses("vlan 5", '"vlan" does not apply to IP packets', 1);
  refuses("host 2:0:0:0:0:1", "a link-layer address does not apply to IP packets", 6);
  refuses("port 70000", "port must be from 0 to 65535, got 70000", 6);
  refuses("udp port ssh", '"ssh" is not a port of udp', 10);
  refuses("proto tcp", '"tcp" is a keyword: write "\\tcp"', 7);
  refuses("net 10.1.1.1/8", "address must have no bits set after the prefix", 5);
  refuses("net 10.0.0.0/33", "prefix length must be at most 32, got 33", 14);
  refuses("(ip and tcp", '"(" has no ")"', 1);
  refuses("ip[0:3] = 1", "size must be 1, 2 or 4, got 3", 6);
  refuses("1 / 0 = 1", "division by zero", 5);
  refuses("(port 80) or 443", "443 needs a word such as host, net or port before it", 14);
  refuses("tcp and", "expected an expression, got end", 8);
});

Deno.test("compileFilter() rejects expressions that libpcap rejects", () => {
  for (const expression of REFUSED) throws(() => compileFilter(expression), SyntaxError, expression);
});

Deno.test("compileFilter() limits the text's length and depth", () => {
  const long = "ip or ".repeat(Math.floor(MAX_TEXT / 6) - 1) + "ip";
  ok(compileFilter(long)(packetOf(encodePacket(PACKETS.web))));
  refuses(long + " ".repeat(MAX_TEXT), `text must have at most ${MAX_TEXT} characters`, MAX_TEXT + 1);
  const nested = (levels: number) => "(".repeat(levels) + "ip" + ")".repeat(levels);
  ok(compileFilter(nested(MAX_DEPTH))(packetOf(encodePacket(PACKETS.web))));
  for (
    const deep of [
      nested(MAX_DEPTH + 1),
      "- ".repeat(4000) + "1 = 1",
      "1 + ".repeat(2000) + "1 = 1",
      "1 % ".repeat(2000) + "1 = 1",
      "ip[".repeat(2000) + "0" + "]".repeat(2000) + " = 1",
      "port " + "not ".repeat(2000) + "80",
    ]
  ) throws(() => compileFilter(deep), SyntaxError, deep.slice(0, 40));
  ok(compileFilter("not ".repeat(2000) + "ip")(packetOf(encodePacket(PACKETS.web))));
});

Deno.test("compileFilter() accepts a full-length prefix as an address, and no shorter one", () => {
  const packets = ["tcp [fd09::1]:5000 > [2001:db8::1]:80 S", "udp 10.9.0.1:5000 > 192.0.2.53:53"].map((
    text,
  ) => packetOf(encodePacket(text)));
  for (
    const [prefixed, plain] of [
      ["host fd09::1/128", "host fd09::1"],
      ["src host fd09::1/128", "src host fd09::1"],
      ["dst host 2001:db8::1/128", "dst host 2001:db8::1"],
      ["src fd09::1/128", "src fd09::1"],
      ["ip6 host fd09::1/128", "ip6 host fd09::1"],
      ["host ::2 or fd09::1/128", "host ::2 or fd09::1"],
      ["net fd09::1/128", "host fd09::1"],
      ["host 10.9.0.1/32", "host 10.9.0.1"],
      ["src host 10.9.0.1/32", "src host 10.9.0.1"],
      ["dst 192.0.2.53/32", "dst 192.0.2.53"],
      ["host 10.9.0.2 or 10.9.0.1/32", "host 10.9.0.2 or 10.9.0.1"],
      ["not host 10.9.0.1/32", "not host 10.9.0.1"],
      ["fd09::1/128", "host fd09::1"],
      ["10.9.0.1/32", "host 10.9.0.1"],
      ["tcp and fd09::1/128", "tcp and host fd09::1"],
      ["not 10.9.0.1/32", "not host 10.9.0.1"],
      ["(fd09::1/128 or udp)", "(host fd09::1 or udp)"],
    ] as const
  ) {
    const [one, other] = [compileFilter(prefixed), compileFilter(plain)];
    deepEqual(packets.map((packet) => one(packet)), packets.map((packet) => other(packet)), prefixed);
  }
  refuses("fd09::/127", 'a prefix length needs "net" before the address', 7);
  refuses("10.9/16", 'a prefix length needs "net" before the address', 5);
  refuses("host fd09::/127", 'a prefix length needs "net" before the address', 12);
  refuses("host 10.9.0.0/31", 'a prefix length needs "net" before the address', 14);
  refuses("host 10.9.0/32", 'a prefix length needs "net" before the address', 12);
  refuses("host fd09::1/129", "prefix length must be at most 128, got 129", 14);
});

Deno.test("compileFilter() accepts generated filters, and limits its time by the tree's size", () => {
  // A walk through the options of TCP, as pflua generates it.
  const place = (n: number): string => n === 0 ? "20" : `${place(n - 1)} + tcp[${place(n - 1)} + 1]`;
  const walk = Array.from({ length: 6 }, (_, n) => `(tcp[${place(n)}] = 2 and tcp[${place(n)} + 1] = 4)`)
    .join(" or ");
  const padded = Array.from({ length: 8 }, () => walk).join(" or ");
  ok(padded.length > 8192, `${padded.length}`);
  ok(compileFilter(padded)(packetOf(encodePacket(PACKETS.web))));
  const fill = (piece: string, joint: string) =>
    piece + (joint + piece).repeat(Math.floor((MAX_TEXT - piece.length) / (joint.length + piece.length)));
  const nested = (n: number): string => n === 0 ? "0" : `tcp[${nested(n - 1)}]`;
  for (
    const text of [
      fill("ip", " or "),
      fill("host 1.1.1.1", " or "),
      fill("1=1", "||"),
      fill(`${nested(60)}=0`, " or "),
      fill("tcp[0]=tcp[0]", "||"),
      fill("(ip or ip6)", "&&"),
      fill("tcp[1 + 1 * 1 - 1 & 1]=0", "||"),
      "(".repeat(64) + fill("ip", " or ").slice(0, MAX_TEXT - 130) + ")".repeat(64),
      "a".repeat(MAX_TEXT),
      ":".repeat(MAX_TEXT),
      "1:".repeat(MAX_TEXT / 2),
      "1.".repeat(MAX_TEXT / 2),
      "-".repeat(MAX_TEXT),
      "\\".repeat(MAX_TEXT),
    ]
  ) {
    const packet = packetOf(encodePacket(PACKETS.web));
    const start = performance.now();
    try {
      compileFilter(text)(packet);
    } catch (error) {
      ok(error instanceof SyntaxError, `${error}`);
    }
    const took = performance.now() - start;
    ok(took < 2000, `${text.slice(0, 30)}: ${took} ms`);
  }
  const relations = (count: number) => Array.from({ length: count }, () => "1=1").join("||");
  ok(compileFilter(relations(Math.floor(MAX_SIZE / 3)))(packetOf(encodePacket(PACKETS.web))));
  const large = relations(MAX_SIZE / 3 + 1);
  refuses(large, `filter must have at most ${MAX_SIZE} instructions`, large.length + 1);
});

Deno.test("compileFilter() throws only SyntaxError on any text", () => {
  const random = new Random(SEED);
  let compiled = 0;
  for (let i = 0; i < 20_000; i++) {
    const base = random.below(2) === 0
      ? EXPRESSIONS[random.below(EXPRESSIONS.length)]!
      : randomExpression(random);
    const words = base.split(/\b/);
    for (let count = random.below(3); count > 0; count--) {
      const place = random.below(words.length);
      const other = EXPRESSIONS[random.below(EXPRESSIONS.length)]!.split(/\b/);
      if (random.below(2) === 0) words.splice(place, random.below(3), other[random.below(other.length)]!);
      else {words.splice(
          place,
          1,
          String.fromCharCode(32 + random.below(random.below(2) === 0 ? 96 : 65_000)),
        );}
    }
    try {
      compileFilter(words.join(""));
      compiled++;
    } catch (error) {
      ok(error instanceof SyntaxError, `${words.join("")}: ${error}`);
    }
  }
  ok(compiled > 1000 && compiled < 19_000, `${compiled}`);
});

Deno.test("compileFilter() returns a boolean for any bytes, and changes none", () => {
  const random = new Random(SEED);
  const filters = Array.from({ length: 300 }, () => randomExpression(random)).flatMap((expression) => {
    try {
      return [compileFilter(expression)];
    } catch {
      return [];
    }
  });
  ok(filters.length > 150);
  let matched = 0;
  for (const bytes of filterPackets(random, 500)) {
    const packet = packetOf(bytes);
    for (const filter of filters) if (filter(packet)) matched++;
    deepEqual(packet.data, bytes);
    ok(!packet.malformed);
  }
  ok(matched > 1000);
});

Deno.test("FILTER_HELP shows filters that compile", () => {
  const lines = FILTER_HELP.split("\n").filter((line) => line.startsWith("  "));
  ok(lines.length > 10);
  for (const line of lines) {
    const [first] = line.trim().split(/ {2,}/);
    compileFilter(first!);
  }
});
