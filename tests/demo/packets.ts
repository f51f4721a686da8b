/** The demo's packets: echo requests and datagrams to whoever `scripts/icmp_echo.ts` answers for. */

import { parseIpv4, parseIpv6 } from "../../lib/wire/address.ts";
import { type Packet, PacketPool } from "../../lib/core/mod.ts";
import { Icmpv4 } from "../../lib/wire/icmpv4.ts";
import { Icmpv6 } from "../../lib/wire/icmpv6.ts";
import { Protocol } from "../../lib/wire/ip.ts";
import { Ipv4 } from "../../lib/wire/ipv4.ts";
import { Ipv6 } from "../../lib/wire/ipv6.ts";
import { Udp } from "../../lib/wire/udp.ts";
import type { Reply, Version } from "./measure.ts";

/** Two addresses that the script answers for. */
export const DST_IPV4: number = parseIpv4("10.9.0.77");
export const DST_IPV6: Uint8Array = parseIpv6("fd09::77");
/** The port of discard (RFC 863). */
export const PORT = 9;
/** The bytes of a datagram of the flood. */
export const DATAGRAM = 1400;
/** This machine's addresses, as the script's options have them. */
const SRC_IPV4 = parseIpv4("10.9.0.1");
const SRC_IPV6 = parseIpv6("fd09::1");
/** Tells the demo's echo requests from others. */
const ID = 0x5741;
/** As many as ping(8) sends (bytes). */
const PING_PAYLOAD = 56;

const [packet] = new PacketPool({ small: 1, large: 0 }).packets as [Packet];

/** An echo request with its IP header. The bytes are good until the next packet is made. */
export function echoRequest(version: Version, seq: number): Uint8Array {
  packet.reset(PING_PAYLOAD);
  if (version === 4) {
    Icmpv4.encode(packet, { type: Icmpv4.EchoRequest, id: ID, seq });
    Ipv4.encode(packet, { src: SRC_IPV4, dst: DST_IPV4, protocol: Protocol.Icmp });
  } else {
    Icmpv6.encode(packet, { type: Icmpv6.EchoRequest, id: ID, seq });
    Ipv6.encode(packet, { src: SRC_IPV6, dst: DST_IPV6, nextHeader: Protocol.Icmpv6 });
  }
  return packet.data;
}

/** A datagram of the flood, with its IP header. */
export function datagram(): Uint8Array {
  packet.reset(DATAGRAM);
  Udp.encode(packet, { srcPort: PORT, dstPort: PORT });
  Ipv4.encode(packet, { src: SRC_IPV4, dst: DST_IPV4, protocol: Protocol.Udp });
  return packet.data.slice();
}

/** The reply in a packet; `undefined` when it is another packet, or its checksum is wrong. */
export function replyIn(packet: Packet): Reply | undefined {
  const icmp4 = Icmpv4.of(packet);
  const icmp = icmp4 ?? Icmpv6.of(packet);
  const type = icmp4 === undefined ? Icmpv6.EchoReply : Icmpv4.EchoReply;
  if (icmp === undefined || icmp.type !== type || icmp.id !== ID || !icmp.checksumValid) return undefined;
  return { version: icmp4 === undefined ? 6 : 4, seq: icmp.seq };
}

/** The same for the kernel's raw ICMPv6 sockets, which take the IP header off and look at the checksum (RFC 3542). */
export function replyInIcmpv6(icmp: DataView, length: number): Reply | undefined {
  const isReply = length >= 8 && icmp.getUint8(0) === Icmpv6.EchoReply && icmp.getUint16(4) === ID;
  return isReply ? { version: 6, seq: icmp.getUint16(6) } : undefined;
}
