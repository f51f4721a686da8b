/** Filters against tcpdump's, which are libpcap's, over packets of every kind. */

import { deepEqual } from "node:assert/strict";
import { PacketPool } from "@warren/tunnel/core";
import { compileFilter } from "@warren/tunnel/filter";
import { Random } from "../kit/random.ts";
import { captureFile } from "../kit/traffic.ts";
import { systemTest } from "../kit/system.ts";

// Specification: pcap-savefile(5)
const FILE_HEADER = 24;
const RECORD_HEADER = 16;

// Implementation
const PACKETS = 3000;
const RANDOM_FILTERS = 150;

const FILTERS = String.raw`
ip
ip6
tcp
udp
icmp
icmp6
sctp
igmp
pim
esp
ah
vrrp
carp
igrp
not tcp
!udp
not ip
not ip6
host 10.9.0.1
src host 10.9.0.1
dst host 10.9.0.1
src 10.9.0.1
dst 10.9.0.1
src or dst host 10.9.0.1
src and dst host 10.9.0.1
dst or src 10.9.0.1
dst and src net 10
ip host 10.9.0.1
ip src 10.9.0.77
not host 10.9.0.1
host 10.9
host 10
net 10
net 10.9
net 10.9.0
net 10.9.0.0
net 10.0.0.0/8
src net 10.0.0.0/8
dst net 10.9.0.0/24
net 10.9.0.0/16
net 10.9.0/24
net 10.9.0.0 mask 255.255.255.0
net 10.9 mask 255.255.0.0
net 0.0.0.0/0
not net 0.0.0.0/0
host 0x0a090001
host fd00::1
src host fd00::1
dst fd00::2
ip6 host fd00::1
net fd00::/8
src net fd00::/64
net ::/0
not net ::/0
src and dst net fd00::/8
net fd00::/63
not host fd00::1
ip6 net 2001:db8::/32
net fd00::1/128
host ::ffff:10.9.0.1
port 53
src port 53
dst port 53
tcp port 80
udp port 53
sctp port 9
port 80 or 443
tcp port 80 or 443
not port 80
port (80 or 443)
tcp port (80 or 443 and not 53)
src and dst port 53
src or dst port 53
tcp src port 80
udp dst port 53
port domain
port http
tcp port http
port https
port ssh
portrange 50-90
tcp portrange 80-443
src portrange 1-100
not portrange 1-100
portrange 443-80
portrange http-https
tcp portrange 80-90 or 443
not port 80 or 443
host 10.9.0.1 or 10.9.0.77 and port 53
tcp port 80 and net 10.0.0.0/8
udp and host 10.9.0.1
tcp and not port 22
(tcp or udp) and port 53
not (tcp or udp)
tcp or udp and ip6
ip6 and udp or tcp
host not 10.9.0.1
port not 80
host (10.9.0.1 or fd00::1)
net 10.0.0.0/8 and (192.0.2.0/24 or 10.9.0.0/16)
proto 6
proto \tcp
proto 17
ip proto 6
ip proto \udp
ip6 proto 6
ip6 proto 44
ip6 proto 17
ip proto (6 or 17)
ip proto ospf
proto 0
not proto 6
ip6 proto 0
proto 58
ip6 proto 58
ip proto 6 or 17
ip multicast
ip6 multicast
not ip multicast
less 60
greater 60
len > 60
len <= 40
length = 40
less 28
not less 28
greater 0
ip[0] & 0xf != 5
ip[0] = 0x45
ip[8] < 5
ip[9] = 6
ip[2:2] > 100
ip[12:4] = 0x0a090001
ip[6:2] & 0x1fff = 0
ip[6:2] & 0x3fff != 0
ip[100] = 0
not ip[100] = 0
ip[0] >= 0x46
ip6[6] = 6
ip6[40] = 17
ip6[4:2] > 20
not ip6[50] = 3
ip6[0:4] & 0xfffff = 0
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
tcp[tcpflags] = tcp-syn
tcp[13] & 2 = 2
tcp[0:2] = 80
tcp[2:2] > 1023
tcp[12] >> 4 > 5
not tcp[13] = 2
icmp[icmptype] = icmp-echo
icmp[0] = 8
icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply
icmp6[icmp6type] = icmp6-echo
icmp6[0] = 128
not icmp6[0] = 128
udp[4:2] > 20
udp[0:2] = udp[2:2]
sctp[0:2] = 9
igmp[0] = 0x11
udp[8] = 1
udp[ip[0] & 7] = 0
(ip[0] & 0xf) * 4 = 20
ip[0] * 4 + 1 > 277
tcp and ip[6:2] & 0x1fff = 0 and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0
ip[8] / 2 > 16
ip[8] % 8 = 0
ip[8] / ip[1] = 64
not ip[8] / ip[1] = 64
not ip[8] % ip[1] = 64
ip[8] ^ 0x40 = 0
ip[8] + 1 % 8 = 65
2 * 3 ^ 1 = 4
1 | 2 & 4 = 1
ip[8] << 1 + 1 = 256
-1 = 0xffffffff
-ip[8] > 5
1 - 2 > 0
ip[12:4] + ip[16:4] < ip[12:4]
ip[12:4] * 3 > 5
5 < len
len > ip[2:2]
len != ip[2:2]
ip[len - 1] = 0
ip[ip[8]] = 0
ip[-1] = 0
tcp[ip[0] & 15] > 5
1 = 1
1 = 2
not 1 = 1
ip[1] << ip[8] = 0
ip[1] >> ip[8] = 0
(((ip[8]))) = ((64))
((tcp))
tcp&&port 80||port 53
tcp || udp
! tcp && ! udp
not not tcp
not (not (tcp and port 80))
ip[0:2] = 0x4500 or ip6
tcp and(port 80)
ip proto 6 and not tcp
tcp[tcpflags] & (tcp-ack) = 0 and ip
ip[16] >= 224
portrange 0-65535
not portrange 0-65535
ip[4:4] & 0 = 0
icmp or icmp6
`.trim().split("\n");

const ADDRESSES = ["0a090001", "0a09004d", "0a000001", "c0000201", "e0000001", "ffffffff"];
const ADDRESSES6 = [
  "fd00".padEnd(31, "0") + "1",
  "fd00".padEnd(31, "0") + "2",
  "20010db8".padEnd(32, "0"),
  "ff02".padEnd(32, "0"),
];
const PORTS = [80, 443, 53, 22, 9, 1024, 40_000];
const PROTOCOLS = [6, 6, 17, 17, 1, 58, 132, 2, 103, 50, 51, 112, 9, 89, 44, 0];

/** A packet of either version, whole or cut, with options, extension headers and fragments. */
function randomPacket(random: Random): Uint8Array {
  const pick = <T>(values: readonly T[]): T => values[random.below(values.length)]!;
  const isIpv4 = random.below(2) === 0;
  const protocol = pick(PROTOCOLS);
  const transport = new Uint8Array(20 + random.below(60)).map(() => random.below(256));
  const fields = new DataView(transport.buffer);
  fields.setUint16(0, pick(PORTS));
  fields.setUint16(2, random.below(8) === 0 ? fields.getUint16(0) : pick(PORTS));
  if (protocol === 1) transport[0] = pick([0, 3, 8, 11]);
  if (protocol === 58) transport[0] = pick([1, 128, 129, 135]);
  if (protocol === 6) transport[13] = pick([2, 16, 18, 1, 4]);
  let header: Uint8Array;
  if (isIpv4) {
    const words = pick([5, 5, 5, 6, 8, 15, 3]);
    header = new Uint8Array(Math.max(20, 4 * words));
    const view = new DataView(header.buffer);
    header[0] = 0x40 | words;
    header[1] = pick([0, 1, 2, 0x10]);
    view.setUint16(2, header.length + transport.length);
    view.setUint16(6, pick([0, 0, 0x4000, 0x2000, 0x20b9, 0x00b9]));
    header[8] = pick([1, 64, 64, 128, 255]);
    header[9] = protocol;
    header.set(Uint8Array.fromHex(pick(ADDRESSES)), 12);
    header.set(Uint8Array.fromHex(pick(ADDRESSES)), 16);
  } else {
    const hasFragment = random.below(4) === 0;
    header = new Uint8Array(40 + (hasFragment ? 8 : 0));
    const view = new DataView(header.buffer);
    header[0] = 0x60;
    view.setUint16(4, header.length - 40 + transport.length);
    header[6] = hasFragment ? 44 : protocol;
    header[7] = 64;
    header.set(Uint8Array.fromHex(pick(ADDRESSES6)), 8);
    header.set(Uint8Array.fromHex(pick(ADDRESSES6)), 24);
    if (hasFragment) {
      header[40] = protocol;
      view.setUint16(42, pick([0, 1, 0xb9 << 3]));
    }
  }
  const packet = new Uint8Array([...header, ...transport]);
  if (random.below(40) === 0) packet[0] = random.below(256);
  return random.below(5) === 0 ? packet.subarray(0, 1 + random.below(packet.length)) : packet;
}

/** An expression of random parts; nearly all that the grammar has can come. */
function randomFilter(random: Random, depth = 3): string {
  const pick = (...values: string[]): string => values[random.below(values.length)]!;
  if (depth > 0 && random.below(5) > 0) {
    const left = randomFilter(random, depth - 1);
    const right = randomFilter(random, depth - 1);
    return pick(`(${left} and ${right})`, `(${left} or ${right})`, `not (${left})`, `${left} and (${right})`);
  }
  const side = pick("", "src ", "dst ", "src and dst ");
  const field = pick(
    "ip[0]",
    "ip[8]",
    "ip[2:2]",
    "tcp[13]",
    "tcp[0:2]",
    "udp[4:2]",
    "ip6[6]",
    "icmp[0]",
    "icmp6[0]",
    "len",
  );
  const number = String(pick("0", "1", "6", "17", "64", "80", "255", "1000"));
  return pick(
    `${side}host ${pick("10.9.0.1", "10.9.0.77", "fd00::1")}`,
    `${side}net ${pick("10.0.0.0/8", "192.0.2.0/24", "fd00::/16")}`,
    `${pick("", "tcp ", "udp ", "sctp ")}${side}port ${pick("80", "443", "53")}`,
    `${side}portrange ${pick("1-100", "400-2000")}`,
    pick("ip", "ip6", "tcp", "udp", "icmp", "icmp6", "ip multicast", "less 60", "proto 6"),
    `${field} ${pick("+", "-", "*", "&", "|", "^")} ${number} ${
      pick("=", "!=", "<", ">", "<=", ">=")
    } ${number}`,
    `${field} ${pick("=", "!=", "<", ">")} ${number}`,
  );
}

/** A capture whose times are its packets' places. */
async function numberedCapture(packets: readonly Uint8Array[]): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await captureFile(packets).bytes();
  const view = new DataView(bytes.buffer);
  let at = FILE_HEADER;
  packets.forEach((packet, i) => {
    view.setUint32(at, i, true);
    at += RECORD_HEADER + packet.length;
  });
  return bytes;
}

/** The places of the packets that tcpdump finds, without its optimiser, which leaves loads out; what it says instead when it refuses the filter. */
async function judgeFilter(file: string, filter: string): Promise<number[] | string> {
  const output = await new Deno.Command("tcpdump", { args: ["-O", "-r", file, "-w", "-", "--", filter] })
    .output();
  if (!output.success) return new TextDecoder().decode(output.stderr);
  const view = new DataView(output.stdout.buffer, output.stdout.byteOffset, output.stdout.length);
  const places: number[] = [];
  for (let at = FILE_HEADER; at < view.byteLength;) {
    places.push(view.getUint32(at, true));
    at += RECORD_HEADER + view.getUint32(at + 8, true);
  }
  return places;
}

/** Where the two differ: a line for each filter. */
async function differences(packets: readonly Uint8Array[], filters: readonly string[]): Promise<string[]> {
  const file = await Deno.makeTempFile({ suffix: ".pcap" });
  const pool = new PacketPool({ small: 1, large: 0 });
  const packet = pool.take(0)!;
  const differences: string[] = [];
  try {
    await Deno.writeFile(file, await numberedCapture(packets));
    for (const text of filters) {
      const expected = await judgeFilter(file, text);
      if (typeof expected === "string") {
        differences.push(`${text}: tcpdump says ${expected}`);
        continue;
      }
      const filter = compileFilter(text);
      const found = packets.flatMap((bytes, i) => {
        packet.reset(bytes.length);
        packet.bytes.set(bytes, packet.offset);
        return filter(packet) ? [i] : [];
      });
      const odd = new Set(found).symmetricDifference(new Set(expected));
      for (const i of [...odd].slice(0, 1)) {
        differences.push(
          `${text}: ${odd.size} packets, such as ${packets[i]!.toHex()}, ours ${found.includes(i)}`,
        );
      }
    }
  } finally {
    await Deno.remove(file);
  }
  return differences;
}

systemTest("compileFilter() finds what tcpdump finds, by more than 150 expressions", {
  programs: ["tcpdump"],
}, async () => {
  const random = new Random(1);
  const packets = Array.from({ length: PACKETS }, () => randomPacket(random));
  deepEqual(await differences(packets, FILTERS), []);
});

systemTest(
  "compileFilter() finds what tcpdump finds, by random expressions",
  { programs: ["tcpdump"] },
  async () => {
    const random = new Random(2);
    const packets = Array.from({ length: PACKETS }, () => randomPacket(random));
    const filters = Array.from({ length: RANDOM_FILTERS }, () => randomFilter(random));
    deepEqual(await differences(packets, filters), []);
  },
);
