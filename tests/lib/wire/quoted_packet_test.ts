/** Quoted packets: everything that acts on errors reads them like the original packets, whatever their headers. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { Firewall } from "@warren/tunnel/firewall";
import { FlowKey, FlowKind } from "@warren/tunnel/flow_key";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { Ip } from "@warren/tunnel/ip";
import { Nat64 } from "@warren/tunnel/nat64";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { Random } from "../../../lib/core/random.ts";
import { encodePacket, formatPacket } from "../../kit/packet_text.ts";
import { TestPipeline } from "../../kit/pipeline.ts";
import { chained, type Extension, EXTENSIONS, randomChain, upperOf } from "../../kit/ipv6_chains.ts";
import { encodeIp, hex, packetOf } from "../../kit/packets.ts";

const UDP = upperOf("udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1300");

/** An error about a packet, to its sender. */
function errorAbout(bytes: Uint8Array, type: number, code = 0, rest = 0): Uint8Array {
  const packet = packetOf(bytes);
  const version = bytes[0]! >> 4 as 4 | 6;
  if (version === 4) Icmpv4.encode(packet, { type, code, rest });
  else Icmpv6.encode(packet, { type, code, rest });
  encodeIp(packet, version, version === 4 ? 1 : 58);
  const ip = Ip.of(packet)!;
  if (ip.version === 4) ip.dst = new DataView(bytes.buffer).getUint32(12);
  else ip.dst = bytes.slice(8, 24);
  return packet.data.slice();
}

function wordsOf(bytes: Uint8Array): [FlowKind, string] {
  const key = new FlowKey();
  const kind = key.read(packetOf(bytes));
  return [kind, kind === FlowKind.None ? "" : `${key.words.subarray(0, key.length)}`];
}

/** A random packet of either version, and where its transport header's first 8 bytes end. */
function randomPacket(random: Random): [bytes: Uint8Array, known: number] {
  const uppers = [
    'udp [fd09::1]:5000 > [2001:db8::1]:53 "query"',
    "tcp [fd09::1]:5000 > [2001:db8::1]:80 A seq 7 ack 8 payload 20",
    "icmp fd09::1 > 2001:db8::1 type 128 id 7 seq 1 payload 8",
  ];
  if (random.below(2) === 0) {
    const bytes = chained(randomChain(random), upperOf(uppers[random.below(uppers.length)]!));
    return [bytes, (Ip.of(packetOf(bytes))?.headerLength ?? Infinity) + 8];
  }
  const plain = encodePacket(
    uppers[random.below(uppers.length)]!.replaceAll(/\[?fd09::1\]?/g, "10.9.0.1")
      .replaceAll(/\[?2001:db8::1\]?/g, "192.0.2.1").replace("type 128", "type 8"),
  );
  // Options, which push the ports back.
  const options = new Array(4 * random.below(11)).fill(1);
  const bytes = Uint8Array.from([...plain.subarray(0, 20), ...options, ...plain.subarray(20)]);
  bytes[0] = 0x45 + options.length / 4;
  new DataView(bytes.buffer).setUint16(2, bytes.length);
  return [bytes, 20 + options.length + 8];
}

Deno.test("FlowKey.read() reads from a quoted packet, truncated anywhere, the packet's own flow or none", () => {
  const random = new Random(0x0f1e);
  let told = 0;
  for (let i = 0; i < 3000; i++) {
    const [sent, known] = randomPacket(random);
    const [kind, words] = wordsOf(sent);
    const length = random.below(4) === 0 ? sent.length : random.below(sent.length + 1);
    const cut = sent.slice(0, length);
    if (cut.length === 0) continue;
    const type = sent[0]! >> 4 === 4 ? Icmpv4.TimeExceeded : Icmpv6.PacketTooBig;
    const [quotedKind, quotedWords] = wordsOf(
      cut.length < 40 ? encodeShort(cut, type) : errorAbout(cut, type),
    );
    const expected = kind === FlowKind.Packet && length >= known ? FlowKind.Error : FlowKind.None;
    equal(quotedKind, expected, `${hex(sent)} cut to ${length}`);
    if (expected === FlowKind.Error) {
      equal(quotedWords, words);
      told++;
    }
  }
  ok(told > 1000, `${told}`);
});

/** An error about less than the addresses. */
function encodeShort(bytes: Uint8Array, type: number): Uint8Array {
  const packet = packetOf(bytes);
  const version = bytes[0]! >> 4 as 4 | 6;
  if (version === 4) Icmpv4.encode(packet, { type });
  else Icmpv6.encode(packet, { type });
  return encodeIp(packet, version, version === 4 ? 1 : 58).data.slice();
}

Deno.test("FlowKey.read() finds no flow in a quoted later fragment, another version, or too many headers", () => {
  const { last, destination } = EXTENSIONS;
  equal(wordsOf(errorAbout(chained([last], UDP), 2))[0], FlowKind.None);
  equal(wordsOf(errorAbout(chained(new Array(16).fill(destination), UDP), 2))[0], FlowKind.Error);
  equal(wordsOf(errorAbout(chained(new Array(17).fill(destination), UDP), 2))[0], FlowKind.None);
  const six = packetOf(chained([], UDP));
  Icmpv4.encode(six, { type: 11 });
  equal(wordsOf(encodeIp(six, 4, 1).data.slice())[0], FlowKind.None);
});

const CHAINS: Record<string, Extension[]> = {
  "no extension header": [],
  "Hop-by-Hop Options": [EXTENSIONS.hopByHop],
  "Destination Options": [EXTENSIONS.destination],
  "a Routing header": [EXTENSIONS.routing],
  "an Authentication header": [EXTENSIONS.ah],
  "an atomic Fragment header": [EXTENSIONS.atomic],
  "a first Fragment header": [EXTENSIONS.first],
  "several": [
    EXTENSIONS.hopByHop,
    EXTENSIONS.destination,
    EXTENSIONS.routing,
    EXTENSIONS.first,
    EXTENSIONS.ah,
  ],
};

function pass(
  test: TestPipeline,
  direction: Direction,
  bytes: Uint8Array,
): { far: string[]; device: string[] } {
  test.send(direction, bytes);
  test.settle();
  const { far, device } = test.receive();
  return { far: far.map(formatPacket), device: device.map(formatPacket) };
}

for (const [name, chain] of Object.entries(CHAINS)) {
  for (const [inside, outside] of [[Direction.Outbound, Direction.Inbound], [1, 0]] as const) {
    Deno.test(`Firewall finds the flow of an error about a packet with ${name}, opened ${inside === 0 ? "outbound" : "inbound"}`, () => {
      const test = new TestPipeline(
        new Firewall({
          default: { outbound: "drop", inbound: "drop" },
          rules: [
            { verdict: "allow", protocol: "udp", direction: inside === 0 ? "outbound" : "inbound" },
          ],
        }),
      );
      const sent = chained(chain, UDP);
      pass(test, inside, sent);
      for (const [type, code] of [[1, 4], [2, 0], [3, 0], [4, 1]] as const) {
        test.send(outside, errorAbout(sent, type, code, 1280));
      }
      const other = sent.slice();
      other[other.length - UDP[1].length + 1]! ^= 1;
      test.send(outside, errorAbout(other, 1, 4));
      test.settle();
      const { far, device } = test.receive();
      deepEqual([far.length, device.length], inside === 0 ? [0, 4] : [4, 0]);
    });
  }

  Deno.test(`PathMtu learns from an error about a packet with ${name}`, () => {
    const stage = new PathMtu();
    const test = new TestPipeline(stage);
    const sent = chained(chain, UDP);
    pass(test, Direction.Outbound, sent);
    pass(test, Direction.Inbound, errorAbout(sent, 2, 0, 1290));
    deepEqual(stage.save().map(({ address, mtu }) => [address, mtu]), [["2001:db8::1", 1290]]);
  });
}

Deno.test("Nat64 translates an error from inside about a packet with extension headers", () => {
  const stages: Stage[] = [new Nat64({ outside: "198.51.100.1", random: () => 6 })];
  const test = new TestPipeline(...stages);
  const [out] =
    pass(test, Direction.Outbound, encodePacket('udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "q"')).far;
  const port = /198\.51\.100\.1:(\d+)/.exec(out!)![1];
  const [answer] = (() => {
    test.send(Direction.Inbound, encodePacket(`udp 192.0.2.1:53 > 198.51.100.1:${port} payload 40`));
    test.settle();
    return test.receive().device;
  })();
  const ends = ["64:ff9b::c000:201", "fd64::5"] as const;
  const sent = chained([EXTENSIONS.destination], [17, answer!.subarray(40)], ends);
  const packet = packetOf(sent);
  Icmpv6.encode(packet, { type: 1, code: 4 });
  encodeIp(packet, 6, 58);
  const error = Icmpv6.of(packet)!;
  error.ip.src = sent.slice(24, 40);
  error.ip.dst = sent.slice(8, 24);
  const { far } = pass(test, Direction.Outbound, packet.data.slice());
  equal(far.length, 1);
  ok(far[0]!.includes(`{ udp 192.0.2.1:53 > 198.51.100.1:${port} `), far[0]);
});
