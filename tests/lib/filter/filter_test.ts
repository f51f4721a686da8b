/** Filters: what they find, and what they refuse. */

import { equal, match, ok, throws } from "node:assert/strict";
import { Direction, type Packet, PacketPool } from "@warren/tunnel/core";
import { compileFilter, FILTER_HELP } from "@warren/tunnel/filter";
import { Protocol } from "@warren/tunnel/ip";
import { Tcp } from "@warren/tunnel/tcp";
import { Random } from "../../kit/random.ts";
import { encodeIp, packetOf } from "../_packets.ts";

function tcp(version: 4 | 6): Packet {
  const packet = packetOf([]);
  Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: 2 });
  return encodeIp(packet, version, Protocol.Tcp);
}

Deno.test("compileFilter() asks for protocols, ports and prefixes of both versions", () => {
  for (const version of [4, 6] as const) {
    const packet = tcp(version);
    ok(compileFilter("tcp port 80")(packet));
    ok(!compileFilter("udp port 80")(packet));
    ok(compileFilter("src port 5000 and dst port http")(packet));
    equal(compileFilter("net 10.9.0.0/24")(packet), version === 4);
    equal(compileFilter("net fe80::/10")(packet), version === 6);
    ok(compileFilter("")(packet));
  }
});

Deno.test("compileFilter(): qualifiers hold for the values that follow", () => {
  ok(compileFilter("tcp port 443 or 80")(tcp(4)));
  ok(!compileFilter("udp port 443 or 80")(tcp(4)));
});

Deno.test("compileFilter(): a byte past the end is no match, even behind not", () => {
  ok(!compileFilter("ip[200] = 0")(tcp(4)));
  ok(!compileFilter("not ip[200] = 0")(tcp(4)));
  ok(!compileFilter("not 1 / ip[1] = 1")(tcp(4)));
  ok(compileFilter("not ip[200] = 0")(tcp(6)));
});

Deno.test("compileFilter(): inbound and outbound follow the direction, and neither is so without one", () => {
  const packet = tcp(4);
  ok(compileFilter("inbound")(packet, Direction.Inbound));
  ok(!compileFilter("inbound")(packet, Direction.Outbound));
  ok(compileFilter("outbound and tcp")(packet, Direction.Outbound));
  ok(!compileFilter("inbound or outbound")(packet));
});

const REFUSED: readonly (readonly [text: string, message: RegExp])[] = [
  ["ether host 1:2:3:4:5:6", /link layer.* at column 1$/],
  ["tcp and vlan 5", /"vlan" needs a link layer.* at column 9$/],
  ["arp", /link layer/],
  ["ip broadcast", /netmask/],
  ["multicast", /link layer/],
  ["host www.example.org", /names are not looked up at column 6$/],
  ["net 10.0.0.1/8", /behind the prefix at column 5$/],
  ["net 10.0.0.0/33", /prefix length up to 32 at column 14$/],
  ["host 10.0.0.0/8", /prefix length behind "host"/],
  ["tcp host 10.0.0.1", /"tcp" before "host" at column 1$/],
  ["ip port 80", /"ip" before "port"/],
  ["udp port http", /not one of udp/],
  ["port 70000", /above 65535 at column 6$/],
  ["port nosuch", /no port that is known/],
  ["tcp or 443", /needs a word like/],
  ["80", /needs a word like/],
  ["(tcp", /the end instead of "\)" at column 5$/],
  ["tcp)", /at column 4$/],
  ["tcp and", /the end/],
  ["proto tcp", /backslash/],
  ["ip6 protochain 6", /"protochain" is not supported.* at column 5$/],
  ["ip[0:3] = 1", /1, 2 or 4 bytes at column 6$/],
  ["1 / 0 = 1", /division by zero at column 3$/],
  ["ip[0] << 32 = 1", /shift by more than 31/],
  ["ip[0]", /instead of a comparison at column 6$/],
  ["len > 4294967296", /32 bits/],
  ["tcp # 5", /no part of a filter at column 5$/],
  ["host 10.0.0.256", /no address/],
  ["host 1::2::3", /no address/],
];

for (const [text, message] of REFUSED) {
  Deno.test(`compileFilter() refuses ${JSON.stringify(text)} and says why`, () => {
    throws(() => compileFilter(text), (error) => error instanceof SyntaxError && message.test(error.message));
  });
}

Deno.test("compileFilter() refuses what nests or lasts too long, soon", () => {
  for (
    const text of ["(".repeat(4000), "!".repeat(4000), "-".repeat(4000), "1^".repeat(2000), "x".repeat(5000)]
  ) {
    throws(() => compileFilter(text), SyntaxError);
  }
  ok(compileFilter(Array(550).fill("tcp").join(" or "))(tcp(4)));
  ok(compileFilter(`${"0+".repeat(2000)}1 = 1`)(tcp(4)));
});

Deno.test("compileFilter() throws nothing but SyntaxError, and filters nothing, whatever they get", () => {
  const random = new Random(3);
  const words =
    "tcp udp ip ip6 icmp6 host net port portrange proto src dst and or not ( ) [ ] : / & | ^ < > = != - + * % 1 80 len 10.0.0.0 8 fd00:: mask less \\tcp ether inbound x 0x1 && ! multicast"
      .split(" ");
  const pool = new PacketPool({ small: 1, large: 0 });
  const packet = pool.take(0)!;
  let compiled = 0;
  for (let i = 0; i < 20_000; i++) {
    const text = Array.from({ length: 1 + random.below(9) }, () => words[random.below(words.length)]).join(
      random.below(4) === 0 ? "" : " ",
    );
    packet.reset(random.below(80));
    for (let j = 0; j < packet.length; j++) packet.bytes[packet.offset + j] = random.below(256);
    try {
      equal(typeof compileFilter(text)(packet, Direction.Inbound), "boolean");
      compiled++;
    } catch (error) {
      ok(error instanceof SyntaxError, `${text}: ${error}`);
      match(error.message, / at column [0-9]+$/);
    }
  }
  ok(compiled > 100);
});

Deno.test("FILTER_HELP names filters in lines that fit a terminal", () => {
  ok(FILTER_HELP.split("\n").every((line) => line.length <= 100));
});
