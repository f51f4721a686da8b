/** Tests of lib/wire/inspect.ts. The lines are tcpdump 4.99.3's (`tcpdump -nSt -r`), unless a name says otherwise. */

import type { Packet } from "@warren/tunnel/core";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { inspect } from "@warren/tunnel/inspect";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Tcp, type TcpFields } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { equal } from "node:assert/strict";
import { encodeIp, packetOf } from "../../kit/packets.ts";

const IPV4 = "IP 10.9.0.1 > 10.9.0.77:";
const IPV6 = "IP6 fe80::1 > 2001:db8::2:";

function udp(version: 4 | 6): Packet {
  const packet = packetOf(new Uint8Array(30));
  Udp.encode(packet, { srcPort: 1234, dstPort: 9797 });
  return encodeIp(packet, version, 17);
}

function tcp(version: 4 | 6, fields: Partial<TcpFields>, length = 0): Packet {
  const packet = packetOf(new Uint8Array(length));
  Tcp.encode(packet, { srcPort: 5000, dstPort: 5001, seq: 1, flags: 0, ...fields });
  return encodeIp(packet, version, 6);
}

function icmp(fields: Parameters<typeof Icmpv4.encode>[1], payload: Uint8Array = new Uint8Array(56)): Packet {
  const packet = packetOf(payload);
  Icmpv4.encode(packet, fields);
  return encodeIp(packet, 4, 1);
}

function icmp6(
  fields: Parameters<typeof Icmpv6.encode>[1],
  payload: Uint8Array = new Uint8Array(56),
): Packet {
  const packet = packetOf(payload);
  Icmpv6.encode(packet, fields);
  return encodeIp(packet, 6, 58);
}

/** A packet in which these extension headers stand before a datagram. */
function extended(first: number, extensions: readonly number[]): Packet {
  const packet = packetOf(new Uint8Array(64));
  Udp.encode(packet, { srcPort: 1234, dstPort: 9999 });
  packet.prepend(extensions.length);
  packet.bytes.set(extensions, packet.offset);
  return encodeIp(packet, 6, first);
}

Deno.test("inspect() formats UDP like tcpdump", () => {
  equal(inspect(udp(4)), "IP 10.9.0.1.1234 > 10.9.0.77.9797: UDP, length 30");
  equal(inspect(udp(6)), "IP6 fe80::1.1234 > 2001:db8::2.9797: UDP, length 30");
});

Deno.test("inspect() formats TCP like tcpdump", () => {
  const ports = "IP 10.9.0.1.5000 > 10.9.0.77.5001:";
  const options = { mss: 1460, sackPermitted: true, timestamps: { tsval: 1, tsecr: 2 }, windowScale: 7 };
  equal(
    inspect(tcp(4, { ack: 2, flags: Tcp.Syn | Tcp.Ack, options })),
    `${ports} Flags [S.], seq 1, ack 2, win 65535, ` +
      "options [mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7], length 0",
  );
  const urgent = {
    seq: 0xfffffff8,
    ack: 2,
    flags: Tcp.Psh | Tcp.Ack | Tcp.Urg,
    urgentPointer: 3,
    window: 100,
  };
  equal(
    inspect(tcp(4, { ...urgent, options: Uint8Array.of(1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9) }, 10)),
    `${ports} Flags [P.U], seq 4294967288:2, ack 2, win 100, urg 3, options [nop,nop,sack 1 {1:9}], length 10`,
  );
  equal(
    inspect(tcp(6, { flags: 0, options: Uint8Array.of(2, 4, 1, 2, 99, 4, 1, 2) })),
    "IP6 fe80::1.5000 > 2001:db8::2.5001: " +
      "Flags [none], win 65535, options [mss 258,unknown-99 0x0102], length 0",
  );
  equal(
    inspect(tcp(4, { seq: 7, flags: Tcp.Rst, window: 0, options: Uint8Array.of(2, 4, 1, 2, 0, 5, 5) })),
    `${ports} Flags [R], seq 7, win 0, options [mss 258,eol], length 0`,
  );
});

Deno.test("inspect() shows AE next to CWR and ECE, like tcpdump 5", () => {
  const packet = tcp(4, { flags: Tcp.Syn | Tcp.Ece | Tcp.Cwr });
  packet.bytes[packet.offset + 32]! |= 1;
  equal(inspect(packet), "IP 10.9.0.1.5000 > 10.9.0.77.5001: Flags [SEWe], seq 1, win 65535, length 0");
});

Deno.test("inspect() shows known TCP options by name, and others in hexadecimal", () => {
  const line = (options: number[], flags: number = Tcp.Ack): string =>
    /options \[(.*)\]/.exec(inspect(tcp(4, { flags, options: Uint8Array.from(options) })))![1]!;
  const eight = [0, 1, 2, 3, 4, 5, 6, 7];
  equal(line([29, 8, 1, 2, 10, 11, 12, 13]), "tcp-ao keyid 1 rnextkeyid 2 mac 0x0a0b0c0d");
  equal(line([20, 4, 1, 2]), "scps cap 01 id 2");
  equal(line([34, 2, 1, 1]), "tfo  cookiereq,nop,nop");
  equal(line([254, 12, 0xf9, 0x89, ...eight]), "exp-tfo cookie 0001020304050607");
  equal(line([254, 4, 0x12, 0x34]), "exp-1234");
  equal(line([30, 12, 1, 1, ...eight], Tcp.Syn), "mptcp 12 capable v1 {0x1020304050607}");
  equal(line([30, 12, 0x10, 3, ...eight], Tcp.Syn), "mptcp 12 join id 3 token 0x10203 nonce 0x4050607");
  equal(line([30, 8, 0x20, 1, 0, 1, 2, 3]), "mptcp 8 dss ack 66051");
  equal(line([30, 8, 0x34, 2, 10, 0, 0, 1]), "mptcp 8 add-addr v0-ip4 id 2 10.0.0.1");
  equal(line([30, 4, 0x40, 1]), "mptcp 4 rem-addr id 1");
  // Wrong lengths
  equal(line([2, 3, 1, 1]), "mss 0x01,nop");
  equal(line([30, 8, 0x20, 3, 0, 1, 2, 3]), "mptcp 0x200300010203");
  equal(line([254, 3, 1, 1]), "exp 0x01,nop");
});

Deno.test("inspect() formats multicast listeners, node information and Routing headers like tcpdump", () => {
  const group = [0xff, 2, ...new Array(13).fill(0), 0xfb];
  const address = [0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0), 9];
  const says = (type: number, rest: number, body: number[], code = 0): string =>
    /ICMP6, (.*), length/.exec(inspect(icmp6({ type, code, rest }, Uint8Array.from(body))))![1]!;
  equal(says(143, 2, new Array(40).fill(0)), "multicast listener report v2, 2 group record(s)");
  equal(says(130, 65_536, group), "multicast listener query max resp delay: 1 addr: ff02::fb");
  equal(
    says(130, 65_536, [...group, 2, 125, 0, 1, ...address]),
    "multicast listener query v2 [gaddr ff02::fb, 1 source(s)]",
  );
  equal(says(138, 5, [], 255), "router renumbering, sequence number reset, seq=5");
  equal(
    says(139, 3 * 65_536, [...new Array(8).fill(0), ...address]),
    "who-are-you request node information query (node addresses, subject=2001:db8::9)",
  );
  equal(
    says(140, 65_536, new Array(8).fill(0)),
    "who-are-you reply node information reply (supported qtypes)",
  );
  const routed = extended(43, [17, 2, 0, 1, 0, 0, 0, 0, ...address]);
  equal(
    inspect(routed),
    `${IPV6} RT6 (len=2, type=0 [Deprecated], segleft=1, [0]2001:db8::9) 1234 > 9999: UDP, length 64`,
  );
});

Deno.test("inspect() marks malformed TCP options", () => {
  equal(
    inspect(tcp(4, { flags: Tcp.Ece | Tcp.Cwr | Tcp.Fin, options: Uint8Array.of(2, 4, 1, 2, 99, 40, 1, 2) })),
    "IP 10.9.0.1.5000 > 10.9.0.77.5001: Flags [FEW], seq 1, win 65535, options [mss 258,bad opt], length 0",
  );
});

Deno.test("inspect() formats ICMP like tcpdump", () => {
  const quoted = packetOf(new Uint8Array(8));
  Udp.encode(quoted, { srcPort: 1, dstPort: 33434 });
  const data = encodeIp(quoted, 4, 17).data;
  const lines: [Packet, string][] = [
    [icmp({ type: 8, id: 7, seq: 1 }), "ICMP echo request, id 7, seq 1, length 64"],
    [icmp({ type: 0, id: 7, seq: 1 }), "ICMP echo reply, id 7, seq 1, length 64"],
    [icmp({ type: 13, id: 7, seq: 1 }), "ICMP time stamp query id 7 seq 1, length 64"],
    [icmp({ type: 10 }), "ICMP router solicitation, length 64"],
    [icmp({ type: 200 }), "ICMP type-#200, length 64"],
    [icmp({ type: 3, code: 0 }, data), "ICMP net 10.9.0.77 unreachable, length 44"],
    [icmp({ type: 3, code: 1 }, data), "ICMP host 10.9.0.77 unreachable, length 44"],
    [icmp({ type: 3, code: 2 }, data), "ICMP 10.9.0.77 protocol 17 unreachable, length 44"],
    [icmp({ type: 3, code: 3 }, data), "ICMP 10.9.0.77 udp port 33434 unreachable, length 44"],
    [
      icmp({ type: 3, code: 4, rest: 1400 }, data),
      "ICMP 10.9.0.77 unreachable - need to frag (mtu 1400), length 44",
    ],
    [
      icmp({ type: 3, code: 13 }, data),
      "ICMP host 10.9.0.77 unreachable - admin prohibited filter, length 44",
    ],
    [icmp({ type: 3, code: 16 }, data), "ICMP 10.9.0.77 unreachable - #16, length 44"],
    [
      icmp({ type: 5, code: 1, rest: 0x0a0900fe }, data),
      "ICMP redirect 10.9.0.77 to host 10.9.0.254, length 44",
    ],
    [
      icmp({ type: 5, code: 9, rest: 0x0a0900fe }, data),
      "ICMP redirect-#9 10.9.0.77 to 10.9.0.254, length 44",
    ],
    [icmp({ type: 11 }, data), "ICMP time exceeded in-transit, length 44"],
    [icmp({ type: 11, code: 1 }, data), "ICMP ip reassembly time exceeded, length 44"],
    [icmp({ type: 12, rest: 9 * 2 ** 24 }, data), "ICMP parameter problem - octet 9, length 44"],
  ];
  for (const [packet, line] of lines) equal(inspect(packet), `${IPV4} ${line}`);
});

Deno.test("inspect() formats ICMPv6 like tcpdump", () => {
  const quoted = packetOf(new Uint8Array(8));
  Udp.encode(quoted, { srcPort: 1, dstPort: 33434 });
  const data = encodeIp(quoted, 6, 17).data;
  const address = Uint8Array.from([0xfe, 0x80, ...new Uint8Array(13), 9]);
  const lines: [Packet, string][] = [
    [icmp6({ type: 128, id: 7, seq: 1 }), "ICMP6, echo request, id 7, seq 1, length 64"],
    [icmp6({ type: 133 }, new Uint8Array()), "ICMP6, router solicitation, length 8"],
    [icmp6({ type: 135 }, address), "ICMP6, neighbor solicitation, who has fe80::9, length 24"],
    [icmp6({ type: 136 }, address), "ICMP6, neighbor advertisement, tgt is fe80::9, length 24"],
    [
      icmp6({ type: 1, code: 0 }, data),
      "ICMP6, destination unreachable, unreachable route 2001:db8::2, length 64",
    ],
    [
      icmp6({ type: 1, code: 2 }, data),
      "ICMP6, destination unreachable, beyond scope 2001:db8::2, source address fe80::1, length 64",
    ],
    [
      icmp6({ type: 1, code: 4 }, data),
      "ICMP6, destination unreachable, unreachable port, 2001:db8::2 udp port 33434, length 64",
    ],
    [icmp6({ type: 2, rest: 1280 }, data), "ICMP6, packet too big, mtu 1280, length 64"],
    [icmp6({ type: 3 }, data), "ICMP6, time exceeded in-transit for 2001:db8::2, length 64"],
    [icmp6({ type: 3, code: 1 }, data), "ICMP6, time exceeded in-transit (reassembly), length 64"],
    [
      icmp6({ type: 4, code: 1, rest: 40 }, data),
      "ICMP6, parameter problem, next header - octet 40, length 64",
    ],
  ];
  for (const [packet, line] of lines) equal(inspect(packet), `${IPV6} ${line}`);
});

Deno.test("inspect() formats IPv6 extension headers and fragments like tcpdump", () => {
  equal(inspect(extended(44, [17, 0, 0, 1, 0, 0, 0, 7])), `${IPV6} frag (0|72) 1234 > 9999: UDP, length 64`);
  equal(inspect(extended(44, [17, 0, 0x05, 0xa8, 0, 0, 0, 7])), `${IPV6} frag (1448|72)`);
  equal(inspect(extended(0, [17, 0, 1, 4, 0, 0, 0, 0])), `${IPV6} HBH 1234 > 9999: UDP, length 64`);
  equal(inspect(extended(60, [17, 0, 1, 4, 0, 0, 0, 0])), `${IPV6} DSTOPT 1234 > 9999: UDP, length 64`);
});

Deno.test("inspect() adds the offset of an IPv4 fragment, which tcpdump omits", () => {
  const later = udp(4);
  const ip = Ipv4.of(later)!;
  ip.fragmentOffset = 1480;
  ip.id = 7;
  equal(inspect(later), `${IPV4} ip-proto-17 (frag 7:38@1480)`);
  ip.fragmentOffset = 0;
  ip.moreFragments = true;
  later.view.setUint16(ip.payloadOffset + 4, 2000);
  equal(inspect(later), "IP 10.9.0.1.1234 > 10.9.0.77.9797: UDP, length 1992 (frag 7:38@0+)");
});

Deno.test("inspect() shows an unknown protocol by its number", () => {
  equal(inspect(encodeIp(packetOf([1, 2, 3, 4]), 4, 47)), `${IPV4} ip-proto-47 4`);
  equal(inspect(encodeIp(packetOf([1, 2, 3, 4]), 6, 1)), `${IPV6} ip-proto-1 4`);
  equal(inspect(encodeIp(packetOf([]), 6, 59)), `${IPV6} no next header`);
});

Deno.test("inspect() shows the first 16 bytes of a malformed packet", () => {
  equal(inspect(packetOf([0x45, 0, 1])), "malformed: 3 bytes 45 00 01");
  equal(inspect(packetOf([])), "malformed: 0 bytes");
  equal(
    inspect(packetOf(new Uint8Array(17))),
    "malformed: 17 bytes 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ...",
  );
  equal(inspect(encodeIp(packetOf([1, 2, 3]), 4, 17)), `${IPV4} UDP malformed: 3 bytes 01 02 03`);
  equal(inspect(encodeIp(packetOf([1, 2, 3]), 6, 58)), `${IPV6} ICMP6 malformed: 3 bytes 01 02 03`);
});

Deno.test("inspect() omits fields that a short ICMP message lacks", () => {
  const quoted = new Uint8Array(23);
  quoted[0] = 0x45;
  quoted[9] = 17;
  quoted.set([10, 0, 0, 2], 16);
  equal(
    inspect(icmp({ type: 3, code: 1 }, quoted.subarray(0, 19))),
    `${IPV4} ICMP unreachable - #1, length 27`,
  );
  equal(inspect(icmp({ type: 3, code: 3 }, quoted)), `${IPV4} ICMP 10.0.0.2 udp unreachable, length 31`);
  equal(
    inspect(icmp6({ type: 135 }, quoted.subarray(0, 15))),
    `${IPV6} ICMP6, neighbor solicitation, length 23`,
  );
  equal(
    inspect(icmp6({ type: 136 }, quoted.subarray(0, 15))),
    `${IPV6} ICMP6, neighbor advertisement, length 23`,
  );
  equal(inspect(icmp6({ type: 137 }, new Uint8Array(31))), `${IPV6} ICMP6, redirect, length 39`);
  equal(
    inspect(icmp6({ type: 3 }, new Uint8Array(39))),
    `${IPV6} ICMP6, time exceeded in-transit, length 47`,
  );
  equal(
    inspect(icmp6({ type: 1, code: 4 }, Uint8Array.from({ length: 43 }, (_, i) => i === 6 ? 17 : 0))),
    `${IPV6} ICMP6, destination unreachable, unreachable port, :: udp, length 51`,
  );
});

Deno.test("inspect() with verbose adds the IP header's fields, and marks a wrong checksum", () => {
  const packet = udp(4);
  const header = "IP (tos 0x0, ttl 64, id 0, offset 0, flags [DF], proto 17, length 58)";
  equal(inspect(packet, { verbose: true }), `${header} 10.9.0.1.1234 > 10.9.0.77.9797: UDP, length 30`);
  packet.bytes[packet.offset + 30]! ^= 1;
  equal(
    inspect(packet, { verbose: true }),
    `${header} 10.9.0.1.1234 > 10.9.0.77.9797: [bad cksum] UDP, length 30`,
  );
  equal(
    inspect(udp(6), { verbose: true }),
    "IP6 (hlim 64, next-header 17, payload length: 38) fe80::1.1234 > 2001:db8::2.9797: UDP, length 30",
  );
});

Deno.test("inspect() leaves Packet.malformed unchanged", () => {
  const packet = packetOf([0x45]);
  inspect(packet);
  equal(packet.malformed, false);
  packet.malformed = true;
  inspect(packet);
  equal(packet.malformed, true);
});
