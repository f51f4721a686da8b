/** Packets as text beside tcpdump: the same line for each, but for the differences that inspect() lists. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { PacketPool } from "@warren/tunnel/core";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { inspect } from "@warren/tunnel/inspect";
import { Tcp } from "@warren/tunnel/tcp";
import { encodePacket } from "../kit/packet_text.ts";
import { pcapOf } from "../kit/pcap.ts";
import { systemTest } from "../kit/system.ts";
import { Random } from "../../lib/core/random.ts";
import { chained, EXTENSIONS, randomChain, upperOf } from "../kit/ipv6_chains.ts";
import { encodeIp, packetOf } from "../kit/packets.ts";

/** The differences that the documentation of inspect() lists, as changes to tcpdump's line that make it ours. */
const LISTED: readonly [what: string, from: RegExp, to: string][] = [
  ["AE is an e since tcpdump 5", /\[SEW\](?=, seq 7777,)/, "[SEWe]"],
  ["a space before max resp delay", /(query|report|done)max resp/, "$1 max resp"],
  ["one space before unreachable prohibited", /, {2}(unreachable prohibited)/, ", $1"],
  ["nothing behind a router renumbering command", / \[\|icmp6\]/, ""],
  ["no names in node information", /DNS name, "[^"]*"/, "DNS name"],
  ["what time stamp replies hold", /(time stamp reply id \d+ seq \d+): org .*(, length)/, "$1$2"],
];

/** Lines of tcpdump's that end where ours go on, as listed: at an extension header behind an Authentication header. */
const GIVEN_UP = /AH\(.*\): {2}ip-proto-(0|43|44|51|60) /;

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

function tcp(flags: number, options: readonly number[] = [], payload = 0, seq = 1): Uint8Array {
  const packet = packetOf(new Uint8Array(payload));
  Tcp.encode(packet, { srcPort: 5000, dstPort: 5001, seq, flags, options: Uint8Array.from(options) });
  const padded = encodeIp(packet, 4, 6);
  return padded.data.slice();
}

function icmp6(type: number, code: number, rest: number, body: readonly number[]): Uint8Array {
  const packet = packetOf(body);
  Icmpv6.encode(packet, { type, code, rest });
  return encodeIp(packet, 6, 58).data.slice();
}

const GROUP = [0xff, 2, ...new Array(13).fill(0), 0xfb];
const HOST = [0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0), 9];

/** Kinds of TCP options with the lengths that they have. */
const TCP_OPTIONS: readonly (readonly number[])[] = [
  [2, 4, 5, 0xb4],
  [3, 3, 7],
  [4, 2],
  [5, 10, ...numbers(8)],
  [5, 18, ...numbers(16)],
  ...[6, 7, 11, 12, 13].map((kind) => [kind, 6, 1, 2, 3, 4]),
  [8, 10, ...numbers(8)],
  [19, 18, ...numbers(16)],
  [20, 4, 0x81, 2],
  [28, 4, 0x80, 5],
  [28, 4, 0, 4],
  [29, 4, 1, 2],
  [29, 16, 1, 2, ...numbers(12)],
  [34, 2],
  [34, 10, ...numbers(8)],
  [34, 5, 1, 2, 3],
  [253, 8, 0xf9, 0x89, 1, 2, 3, 4],
  [254, 4, 0xf9, 0x89],
  [254, 12, 0xf9, 0x89, ...numbers(8)],
  [254, 7, 0xf9, 0x89, 1, 2, 3],
  [254, 6, 1, 2, 3, 4],
  [99, 4, 1, 2],
];

/** Options of Multipath TCP behind their kind and length, with the flags of the segment that may have them. */
const MULTIPATH: readonly (readonly [flags: number, content: readonly number[]])[] = [
  [Tcp.Syn, [0x01, 0x81]],
  [Tcp.Syn, [0x00, 0x01, ...numbers(8)]],
  [Tcp.Syn, [0x01, 0x81, ...numbers(8)]],
  [Tcp.Ack, [0x01, 0x01, ...numbers(16)]],
  [Tcp.Ack, [0x01, 0x81, ...numbers(18)]],
  [Tcp.Syn, [0x10, 3, ...numbers(8)]],
  [Tcp.Syn, [0x11, 3, ...numbers(8)]],
  [Tcp.Syn | Tcp.Ack, [0x11, 3, ...numbers(12)]],
  [Tcp.Ack, [0x10, 0, ...numbers(20)]],
  ...([[0, 0], [1, 4], [3, 8], [4, 10], [4, 12], [5, 14], [5, 16], [0x1f, 24], [12, 14], [0x0f, 22]] as const)
    .map((
      [bits, count],
    ) => [Tcp.Ack, [0x20, bits, ...numbers(count)]] as const),
  ...[[0x34, 2, 10, 0, 0, 1], [0x34, 2, 10, 0, 0, 1, 0, 80], [0x36, 2, ...HOST], [0x36, 2, ...HOST, 0, 80]]
    .map((
      content,
    ) => [Tcp.Ack, content] as const),
  [Tcp.Ack, [0x30, 2, 10, 0, 0, 1, ...numbers(8)]],
  [Tcp.Ack, [0x30, 2, 10, 0, 0, 1, 0, 80, ...numbers(8)]],
  [Tcp.Ack, [0x30, 2, ...HOST, ...numbers(8)]],
  [Tcp.Ack, [0x31, 2, 10, 0, 0, 1]],
  [Tcp.Ack, [0x40, 1]],
  [Tcp.Ack, [0x40, 1, 2, 3]],
  [Tcp.Ack, [0x50]],
  [Tcp.Ack, [0x51, 4]],
  [Tcp.Ack, [0x60, 0, ...numbers(8)]],
  [Tcp.Ack, [0x70, 0, ...numbers(8)]],
  [Tcp.Ack, [0x80, 0]],
  [Tcp.Ack, [0xf0, 0]],
];

function padded(options: readonly number[]): number[] {
  return [...options, ...new Array((4 - options.length % 4) % 4).fill(1)];
}

function routing(
  type: number,
  left: number,
  head: readonly number[],
  addresses: readonly number[],
): Uint8Array {
  const extension = { type: 43, bytes: [0, addresses.length / 8, type, left, ...head, ...addresses] };
  return chained([extension], upperOf("udp [fd09::1]:1234 > [2001:db8::1]:9999 payload 4"));
}

function packets(): Uint8Array[] {
  const random = new Random(7);
  const udp6 = upperOf("udp [fd09::1]:1234 > [2001:db8::1]:9999 payload 4");
  const { last, hopByHop } = EXTENSIONS;
  const accurateEcn = tcp(0xc2, [], 0, 7777);
  accurateEcn[32]! |= 1;
  return [
    ...numbers(256).map((flags) => tcp(flags)),
    accurateEcn,
    ...TCP_OPTIONS.map((option) => tcp(Tcp.Syn, padded(option))),
    ...MULTIPATH.map(([flags, content]) => tcp(flags, padded([30, content.length + 2, ...content]))),
    ...[16, 17, 18].map((length) => tcp(Tcp.Ack, [1, 1, 8, 10, ...numbers(8)], length)),
    // Multicast listeners, of both versions.
    ...[130, 131, 132].flatMap((
      type,
    ) => [icmp6(type, 0, 1000 * 65_536, GROUP), icmp6(type, 0, 0, new Array(16).fill(0))]),
    icmp6(130, 0, 1000 * 65_536, [...GROUP, 2, 125, 0, 0]),
    icmp6(130, 0, 0x8fff * 65_536, [...GROUP, 10, 143, 0, 2, ...HOST, ...HOST]),
    icmp6(130, 0, 1, [...GROUP, 2, 0, 0, 2, ...HOST]),
    ...[0, 1, 2].map((count) => icmp6(143, 0, count, new Array(20 * count).fill(0))),
    ...[0, 1, 255].map((code) => icmp6(138, code, 9, new Array(28).fill(0))),
    ...[0, 1, 2, 3, 4].flatMap((kind) => [
      icmp6(139, 0, kind * 65_536, [...numbers(8), ...HOST]),
      icmp6(140, 0, kind * 65_536, [...numbers(8), 0, 0, 0, 0, 4, 104, 111, 115, 116, 0]),
    ]),
    icmp6(139, 1, 2 * 65_536, [...numbers(8), 4, 104, 111, 115, 116, 0]),
    icmp6(139, 2, 3 * 65_536, [...numbers(8), 10, 0, 0, 1]),
    icmp6(140, 1, 0, numbers(8)),
    icmp6(140, 2, 0, numbers(8)),
    ...[141, 142, 144, 145, 146, 147].map((type) => icmp6(type, 0, 7 * 65_536, numbers(8))),
    ...[135, 136].map((type) => icmp6(type, 0, 0, HOST)),
    // Routing headers and the others.
    routing(0, 0, [0, 0, 0, 0], []),
    routing(0, 2, [0, 0, 0, 0], [...HOST, ...GROUP]),
    routing(2, 1, [0, 0, 0, 0], HOST),
    routing(4, 1, [1, 0, 0, 0x17], [...HOST, ...HOST]),
    routing(4, 0, [0, 9, 0, 9], HOST),
    chained([last], udp6),
    chained([hopByHop], [59, new Uint8Array(0)]),
    // A fragment inside a fragment is malformed here.
    ...numbers(200).map(() => randomChain(random))
      .filter((chain) => chain.filter((extension) => extension === EXTENSIONS.first).length < 2)
      .map((chain) => chained(chain, udp6)),
    // What both versions of ICMP say.
    ...[
      "icmp 10.9.0.1 > 192.0.2.1 type 8 id 7 seq 1 payload 8",
      "icmp 10.9.0.1 > 192.0.2.1 type 0 id 7 seq 1 payload 8",
      ...numbers(16).map((code) =>
        `icmp 192.0.2.9 > 10.9.0.1 type 3 code ${code} { udp 10.9.0.1:5 > 192.0.2.1:6 payload 8 }`
      ),
      "icmp 192.0.2.9 > 10.9.0.1 type 11 { udp 10.9.0.1:5 > 192.0.2.1:6 payload 8 }",
      ...numbers(5).map((code) =>
        `icmp 2001:db8::9 > fd09::1 type 1 code ${code} { udp [fd09::1]:5 > [2001:db8::1]:6 payload 8 }`
      ),
      ...numbers(4).map((code) =>
        `icmp 2001:db8::9 > fd09::1 type 4 code ${code} { udp [fd09::1]:5 > [2001:db8::1]:6 payload 8 }`
      ),
      "icmp 2001:db8::9 > fd09::1 type 2 rest 1400 { udp [fd09::1]:5 > [2001:db8::1]:6 payload 8 }",
      "udp 10.9.0.1:1234 > 192.0.2.1:9999 payload 12",
      "udp [fd09::1]:1234 > [2001:db8::1]:9999 payload 12",
    ].map(encodePacket),
  ];
}

systemTest(
  "inspect() says what tcpdump says, but for what it lists",
  { programs: ["tcpdump"], root: false },
  async () => {
    const all = packets();
    const file = await Deno.makeTempFile({ suffix: ".pcap" });
    let lines: string[];
    try {
      await Deno.writeFile(file, pcapOf(all));
      const { stdout } = await new Deno.Command("tcpdump", { args: ["-nStr", file], stderr: "null" })
        .output();
      lines = new TextDecoder().decode(stdout).split("\n").filter((line) => line.startsWith("IP"));
    } finally {
      await Deno.remove(file);
    }
    equal(lines.length, all.length);
    const pool = new PacketPool({ small: 1, large: 0 });
    const used = new Set<string>();
    const differing: [tcpdump: string, inspect: string][] = [];
    all.forEach((bytes, i) => {
      const packet = pool.from(bytes)!;
      const ours = inspect(packet);
      pool.give(packet);
      let line = lines[i]!;
      for (const [what, from, to] of LISTED) {
        if (line === ours || !from.test(line)) continue;
        line = line.replace(from, to);
        used.add(what);
      }
      if (line !== ours && !GIVEN_UP.test(line)) differing.push([line, ours]);
    });
    deepEqual(differing.slice(0, 3), []);
    ok(used.size >= 3, [...used].join());
  },
);
