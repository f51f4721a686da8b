/** Keys of flows, of whole packets and of those that errors quote. */

import { deepEqual, equal } from "node:assert/strict";
import type { Packet } from "@warren/tunnel/core";
import { FlowKey, FlowKind } from "@warren/tunnel/flow_key";
import { formatAddress } from "@warren/tunnel/address";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { Protocol } from "@warren/tunnel/ip";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { Random } from "../../../lib/core/random.ts";
import { encodeIp, packetOf } from "../../kit/packets.ts";

const VERSIONS = [4, 6] as const;
const TEXTS = { 4: ["10.9.0.1", "10.9.0.77"], 6: ["fe80::1", "2001:db8::2"] };

function udp(version: 4 | 6, payload: number[] = []): Packet {
  const packet = packetOf(payload);
  Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
  return encodeIp(packet, version, Protocol.Udp);
}

function echo(version: 4 | 6, type: "EchoRequest" | "EchoReply", id: number): Packet {
  const packet = packetOf([1, 2, 3]);
  if (version === 4) Icmpv4.encode(packet, { type: Icmpv4[type], id, seq: 3 });
  else Icmpv6.encode(packet, { type: Icmpv6[type], id, seq: 3 });
  return encodeIp(packet, version, version === 4 ? Protocol.Icmp : Protocol.Icmpv6);
}

/** An error of ICMP about a packet, of which it quotes so many bytes. */
function error(version: 4 | 6, quoted: Packet, length = quoted.length): Packet {
  const packet = packetOf(quoted.data.subarray(0, length));
  if (version === 4) Icmpv4.encode(packet, { type: Icmpv4.TimeExceeded });
  else Icmpv6.encode(packet, { type: Icmpv6.TimeExceeded });
  return encodeIp(packet, version, version === 4 ? Protocol.Icmp : Protocol.Icmpv6);
}

function told(packet: Packet): unknown[] {
  const key = new FlowKey();
  const kind = key.read(packet);
  if (kind === FlowKind.None) return [kind];
  const { version, protocol, src, dst, srcPort, dstPort } = key;
  return [kind, version, protocol, formatAddress(src), formatAddress(dst), srcPort, dstPort];
}

for (const version of VERSIONS) {
  const icmp = version === 4 ? Protocol.Icmp : Protocol.Icmpv6;
  const [src, dst] = TEXTS[version];

  Deno.test(`FlowKey.read() reads addresses and ports of UDP and TCP over IPv${version}`, () => {
    deepEqual(told(udp(version)), [FlowKind.Packet, version, 17, src, dst, 5000, 53]);
    const packet = packetOf([]);
    Tcp.encode(packet, { srcPort: 65_535, dstPort: 40_000, seq: 1, flags: 2 });
    encodeIp(packet, version, Protocol.Tcp);
    deepEqual(told(packet), [FlowKind.Packet, version, 6, src, dst, 65_535, 40_000]);
  });

  Deno.test(`FlowKey.read() has the identifier of ICMP echo over IPv${version} as both ports`, () => {
    for (const type of ["EchoRequest", "EchoReply"] as const) {
      deepEqual(told(echo(version, type, 0x8765)), [
        FlowKind.Packet,
        version,
        icmp,
        src,
        dst,
        0x8765,
        0x8765,
      ]);
    }
  });

  Deno.test(`FlowKey.read() reads the flow of the packet that an ICMP error over IPv${version} quotes`, () => {
    const header = version === 4 ? 20 : 40;
    deepEqual(told(error(version, udp(version), header + 8)), [
      FlowKind.Error,
      version,
      17,
      src,
      dst,
      5000,
      53,
    ]);
    const quoted = echo(version, "EchoRequest", 7);
    deepEqual(told(error(version, quoted)), [FlowKind.Error, version, icmp, src, dst, 7, 7]);
    for (let length = 0; length < header + 8; length++) {
      deepEqual(told(error(version, udp(version), length)), [FlowKind.None], `${length} bytes`);
    }
  });

  Deno.test(`FlowKey.read() has no ports for other protocols over IPv${version}`, () => {
    const packet = encodeIp(packetOf([1, 2, 3, 4, 5]), version, Protocol.Gre);
    deepEqual(told(packet), [FlowKind.Packet, version, 47, src, dst, 0, 0]);
  });

  Deno.test(`FlowKey.read() finds nothing in an IPv${version} packet with a truncated transport header`, () => {
    const shortest = [[6, 20], [17, 8], [136, 8], [33, 12], [132, 12]];
    for (const [protocol, length] of shortest) {
      const short = encodeIp(packetOf(new Uint8Array(length! - 1)), version, protocol!);
      deepEqual(told(short), [FlowKind.None]);
      equal(short.malformed, true);
      equal(told(encodeIp(packetOf(new Uint8Array(length!)), version, protocol!))[0], FlowKind.Packet);
    }
  });

  Deno.test(`FlowKey.reverse() gives the key of the reply over IPv${version}, and back`, () => {
    const packet = udp(version);
    const key = new FlowKey();
    key.read(packet);
    const before = key.words.slice();
    key.reverse();
    const view = Udp.of(packet)!;
    view.swapPorts();
    view.ip.swap();
    const answer = new FlowKey();
    answer.read(packet);
    deepEqual(key.words, answer.words);
    key.reverse();
    deepEqual(key.words, before);
  });
}

Deno.test("FlowKey.read() finds nothing in a later fragment", () => {
  const packet = udp(4, [1, 2, 3, 4, 5, 6, 7, 8]);
  packet.view.setUint16(packet.offset + 6, 0x2000);
  equal(told(packet)[0], FlowKind.Packet, "the first one has ports");
  packet.view.setUint16(packet.offset + 6, 0x0001);
  deepEqual(told(packet), [FlowKind.None]);
  const error4 = error(4, udp(4));
  error4.view.setUint16(error4.offset + 28 + 6, 0x0001);
  deepEqual(told(error4), [FlowKind.None], "a quoted one");
});

Deno.test("FlowKey.srcPort and dstPort are set separately", () => {
  const key = new FlowKey();
  key.read(udp(4));
  key.srcPort = 0xfffe;
  key.dstPort = 0x10001;
  deepEqual([key.srcPort, key.dstPort], [0xfffe, 1]);
});

Deno.test("FlowKey.read() never throws, for any bytes", () => {
  const random = new Random(5);
  const key = new FlowKey();
  for (let round = 0; round < 20_000; round++) {
    const bytes = Uint8Array.from({ length: random.below(120) }, () => random.below(256));
    if (bytes.length > 0) bytes[0] = [0x45, 0x60, 0x46, bytes[0]!][random.below(4)]!;
    if (bytes.length > 9 && random.below(2) === 0) bytes.set([0, bytes.length], 2);
    if (bytes.length > 9) bytes[9] = [1, 6, 17, 58, bytes[9]!][random.below(5)]!;
    key.read(packetOf(bytes));
  }
});
