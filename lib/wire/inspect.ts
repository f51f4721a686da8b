/** Formats a packet as one line, like `tcpdump -n`. */

import { icmpv6Text, portText } from "./_inspect_icmpv6.ts";
import { tcpOptionsText } from "./_inspect_tcp.ts";
import * as field from "./header_fields.ts";
import { extensionLength } from "./ipv6_extensions.ts";
import { formatIpv4, formatIpv6 } from "./address.ts";
import type { Packet } from "../core/packet.ts";
import { Icmpv4 } from "./icmpv4.ts";
import { Icmpv6 } from "./icmpv6.ts";
import { Ip } from "./ip.ts";
import type { Ipv4 } from "./ipv4.ts";
import type { Ipv6 } from "./ipv6.ts";
import { Protocol } from "./protocol.ts";
import { Tcp } from "./tcp.ts";
import { Udp } from "./udp.ts";

// Specification
const { IPV4_PROTOCOL, IPV4_DST, IPV4_HEADER, IPV6_HEADER, DST_PORT, TCP_FLAGS, UDP_HEADER } = field;
const { EXTENSION_LENGTH, FRAGMENT_HEADER, FRAGMENT_WORD, FRAGMENT_OFFSET_IPV6 } = field;
const { ROUTING_TYPE, ROUTING_SEGMENTS_LEFT, ROUTING_ADDRESSES } = field;
const { ROUTING_MOBILE, ROUTING_SEGMENTS, ROUTING_SOURCE } = field;

// Implementation: tcpdump's terms (its print-icmp.c, print-icmp6.c and print-tcp.c)
const SHOWN_BYTES = 16;
const FLAG_LETTERS = "FSRP.UEWe"; // the last one is AE, of Accurate ECN
const ICMPV4_TYPES: Record<number, string> = {
  4: "source quench",
  10: "router solicitation",
  13: "time stamp request",
  15: "information request",
  16: "information reply",
  17: "address mask request",
};
const ICMPV4_UNREACHABLE: Record<number, string> = {
  0: "net % unreachable",
  1: "host % unreachable",
  5: "% unreachable - source route failed",
  6: "net % unreachable - unknown",
  7: "host % unreachable - unknown",
  8: "% unreachable - source host isolated",
  9: "net % unreachable - admin prohibited",
  10: "host % unreachable - admin prohibited",
  11: "net % unreachable - tos prohibited",
  12: "host % unreachable - tos prohibited",
  13: "host % unreachable - admin prohibited filter",
  14: "host % unreachable - host precedence violation",
  15: "host % unreachable - precedence cutoff",
};
const ICMPV4_REDIRECT = [
  "redirect % to net",
  "redirect % to host",
  "redirect-tos % to net",
  "redirect-tos % to host",
];

/** Options for {@linkcode inspect}. */
export interface InspectOptions {
  /** Adds the other fields of the IP header, and marks a wrong transport checksum. @default {false} */
  verbose?: boolean;
}

/**
 * Formats a packet as one line, like `tcpdump -nS`: numeric addresses and ports, absolute sequence numbers. For logs and
 * tests: allocates. Never throws and changes nothing, not even {@linkcode Packet.malformed}.
 *
 * `lib/wire/README.md` lists the differences from tcpdump 4.99.
 *
 * @example Formatting a DNS query
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { inspect } from "@warren/tunnel/inspect";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const packet = new PacketPool().from(new Uint8Array(30))!;
 * Udp.encode(packet, { srcPort: 1234, dstPort: 53 });
 * Ipv4.encode(packet, { src: 0x0a000001, dst: 0x0a000002, protocol: 17 });
 * assert(inspect(packet) === "IP 10.0.0.1.1234 > 10.0.0.2.53: UDP, length 30");
 * ```
 */
export function inspect(packet: Packet, options: InspectOptions = {}): string {
  const { malformed } = packet;
  const line = ipLine(packet, options.verbose ?? false);
  packet.malformed = malformed;
  return line;
}

function ipLine(packet: Packet, verbose: boolean): string {
  const ip = Ip.of(packet);
  if (ip === undefined) return malformedText(packet, packet.offset, packet.length);
  const name = ip.version === 4 ? "IP" : "IP6";
  const details = !verbose ? "" : ip.version === 4 ? ipv4Details(ip) : ipv6Details(ip);
  const [ports, rest] = upperLayer(packet, ip, verbose);
  const extensions = ip.version === 6 ? extensionHeaders(ip) : "";
  const fragment = ip.version === 4 && ip.isFragment ? ipv4Fragment(ip) : "";
  // As in tcpdump, ports follow the addresses, or the extension headers if there are any.
  if (extensions !== "") {
    const between = ports === undefined ? "" : `${ports.src} > ${ports.dst}: `;
    return `${name} ${details}${ip.srcText} > ${ip.dstText}: ${extensions}${between}${rest}`.trimEnd();
  }
  const src = ports === undefined ? ip.srcText : `${ip.srcText}.${ports.src}`;
  const dst = ports === undefined ? ip.dstText : `${ip.dstText}.${ports.dst}`;
  return `${name} ${details}${src} > ${dst}: ${rest}${fragment}`;
}

function ipv4Details(ip: Ipv4): string {
  const service = (ip.dscp << 2 | ip.ecn).toString(16);
  const flags = (ip.moreFragments ? "+" : "") + (ip.dontFragment ? "DF" : "");
  return `(tos 0x${service}, ttl ${ip.ttl}, id ${ip.id}, offset ${ip.fragmentOffset}, ` +
    `flags [${flags || "none"}], proto ${ip.protocol}, length ${ip.totalLength}) `;
}

function ipv6Details(ip: Ipv6): string {
  const trafficClass = ip.trafficClass === 0 ? "" : `class 0x${hex(ip.trafficClass, 2)}, `;
  const flowLabel = ip.flowLabel === 0 ? "" : `flowlabel 0x${hex(ip.flowLabel, 5)}, `;
  return `(${trafficClass}${flowLabel}hlim ${ip.hopLimit}, next-header ${ip.nextHeader}, ` +
    `payload length: ${ip.totalLength - IPV6_HEADER}) `;
}

function ipv4Fragment(ip: Ipv4): string {
  return ` (frag ${ip.id}:${ip.payloadLength}@${ip.fragmentOffset}${ip.moreFragments ? "+" : ""})`;
}

function extensionHeaders(ip: Ipv6): string {
  const { bytes, view } = ip.packet;
  let text = "";
  let next = ip.nextHeader;
  let at = ip.start + IPV6_HEADER;
  while (at < ip.payloadOffset) {
    const length = extensionLength(bytes, at, next);
    switch (next) {
      case Protocol.HopByHop:
        text += "HBH ";
        break;
      case Protocol.DestinationOptions:
        text += "DSTOPT ";
        break;
      case Protocol.Routing:
        text += `RT6 (len=${bytes[at + EXTENSION_LENGTH]!}, type=${routingText(ip, at)}) `;
        break;
      case Protocol.Fragment:
        text += `frag (${view.getUint16(at + FRAGMENT_WORD) & FRAGMENT_OFFSET_IPV6}|` +
          `${ip.start + ip.totalLength - at - FRAGMENT_HEADER}) `;
        break;
      case Protocol.Ah:
        text += `AH(spi=0x${hex(view.getUint32(at + 4), 8)},seq=0x${view.getUint32(at + 8).toString(16)},` +
          `icv=0x${bytes.subarray(at + 12, at + length).toHex()}): `;
        break;
    }
    next = bytes[at]!;
    at += length;
  }
  return text;
}

/** Formats a Routing header from its type, with addresses if the type is known. */
function routingText({ packet: { bytes, view } }: Ipv6, at: number): string {
  const units = bytes[at + EXTENSION_LENGTH]!;
  const type = bytes[at + ROUTING_TYPE]!;
  const note = type === ROUTING_SOURCE ? " [Deprecated]" : "";
  let text = `${type}${note}, segleft=${bytes[at + ROUTING_SEGMENTS_LEFT]!}`;
  if (type === ROUTING_SEGMENTS) {
    const flags = bytes[at + 5]!;
    text += `, last-entry=${bytes[at + 4]!}${flags === 0 ? "" : `, flags=0x${flags.toString(16)}`}`;
    text += `, tag=${view.getUint16(at + 6).toString(16)}`;
  } else if (type !== ROUTING_SOURCE && type !== ROUTING_MOBILE) return text;
  if (units % 2 !== 0) return text;
  for (let i = 0; i < units / 2; i++) text += `, [${i}]${formatIpv6(bytes, at + ROUTING_ADDRESSES + 16 * i)}`;
  return text;
}

/** Returns the ports of the upper layer, and the rest of its text. */
function upperLayer(
  packet: Packet,
  ip: Ip,
  verbose: boolean,
): [{ src: number; dst: number } | undefined, string] {
  const { protocol } = ip;
  if (ip.fragmentOffset !== 0) return [undefined, ip.version === 4 ? `ip-proto-${protocol}` : ""];
  const warning = (valid: boolean): string => verbose && !valid && !ip.isFragment ? "[bad cksum] " : "";
  switch (protocol) {
    case Protocol.Udp: {
      const udp = Udp.of(packet);
      if (udp === undefined) return [undefined, malformedUpper(ip, "UDP")];
      const ports = { src: udp.srcPort, dst: udp.dstPort };
      return [ports, `${warning(udp.checksumValid)}UDP, length ${udp.udpLength - UDP_HEADER}`];
    }
    case Protocol.Tcp: {
      const tcp = Tcp.of(packet);
      if (tcp === undefined) return [undefined, malformedUpper(ip, "TCP")];
      return [{ src: tcp.srcPort, dst: tcp.dstPort }, warning(tcp.checksumValid) + tcpText(tcp)];
    }
    case Protocol.Icmp: {
      if (ip.version === 6) break;
      const icmp = Icmpv4.of(packet);
      if (icmp === undefined) return [undefined, malformedUpper(ip, "ICMP")];
      const text = `ICMP ${icmpv4Text(icmp)}, length ${ip.payloadLength}`;
      return [undefined, warning(icmp.checksumValid) + text];
    }
    case Protocol.Icmpv6: {
      if (ip.version === 4) break;
      const icmp = Icmpv6.of(packet);
      if (icmp === undefined) return [undefined, malformedUpper(ip, "ICMP6")];
      const text = `ICMP6, ${icmpv6Text(icmp)}, length ${ip.payloadLength}`;
      return [undefined, warning(icmp.checksumValid) + text];
    }
    case Protocol.NoNext:
      return [undefined, "no next header"];
  }
  return [undefined, `ip-proto-${protocol} ${ip.payloadLength}`];
}

function tcpText(tcp: Tcp): string {
  const { payloadLength } = tcp;
  const flags = tcp.packet.view.getUint16(tcp.start + TCP_FLAGS);
  let letters = "";
  for (let bit = 0; bit < FLAG_LETTERS.length; bit++) {
    if ((flags & 1 << bit) !== 0) letters += FLAG_LETTERS[bit];
  }
  let text = `Flags [${letters || "none"}]`;
  if (payloadLength > 0) text += `, seq ${tcp.seq}:${(tcp.seq + payloadLength) % 2 ** 32}`;
  else if ((flags & (Tcp.Syn | Tcp.Fin | Tcp.Rst)) !== 0) text += `, seq ${tcp.seq}`;
  if (tcp.isAck) text += `, ack ${tcp.ack}`;
  text += `, win ${tcp.window}`;
  if (tcp.isUrg) text += `, urg ${tcp.urgentPointer}`;
  if (tcp.payloadOffset > tcp.optionsOffset) text += `, options [${tcpOptionsText(tcp)}]`;
  return `${text}, length ${payloadLength}`;
}

function icmpv4Text(icmp: Icmpv4): string {
  const { type, code, rest, packet: { bytes, view } } = icmp;
  switch (type) {
    case Icmpv4.EchoRequest:
      return `echo request, id ${icmp.id}, seq ${icmp.seq}`;
    case Icmpv4.EchoReply:
      return `echo reply, id ${icmp.id}, seq ${icmp.seq}`;
    case Icmpv4.TimeExceeded:
      return ["time exceeded in-transit", "ip reassembly time exceeded"][code] ?? `time exceeded-#${code}`;
    case Icmpv4.ParameterProblem:
      return code === 0 ? `parameter problem - octet ${rest >>> 24}` : `parameter problem - code ${code}`;
    case Icmpv4.TimestampRequest:
      return `time stamp query id ${icmp.id} seq ${icmp.seq}`;
    case Icmpv4.TimestampReply:
      return `time stamp reply id ${icmp.id} seq ${icmp.seq}`;
    case Icmpv4.RouterAdvertisement:
      return "router advertisement";
    case Icmpv4.DestinationUnreachable:
    case Icmpv4.Redirect:
      break;
    default:
      return ICMPV4_TYPES[type] ?? `type-#${type}`;
  }
  const quoted = icmp.quotedOffset;
  const name = type === Icmpv4.Redirect ? "redirect" : "unreachable";
  if (icmp.quotedLength < IPV4_HEADER) return `${name} - #${code}`;
  const dst = formatIpv4(view.getUint32(quoted + IPV4_DST));
  if (type === Icmpv4.Redirect) {
    return `${(ICMPV4_REDIRECT[code] ?? `redirect-#${code} % to`).replace("%", dst)} ${formatIpv4(rest)}`;
  }
  const protocol = bytes[quoted + IPV4_PROTOCOL]!;
  if (code === 2) return `${dst} protocol ${protocol} unreachable`;
  if (code === 3) {
    const ports = (bytes[quoted]! & 0x0f) << 2;
    const port = ports + 4 <= icmp.quotedLength ? view.getUint16(quoted + ports + DST_PORT) : -1;
    return `${dst} ${portText(protocol, port)} unreachable`;
  }
  if (code === 4) return `${dst} unreachable - need to frag${icmp.seq === 0 ? "" : ` (mtu ${icmp.seq})`}`;
  return ICMPV4_UNREACHABLE[code]?.replace("%", dst) ?? `${dst} unreachable - #${code}`;
}

function malformedUpper(ip: Ip, name: string): string {
  return `${name} ${malformedText(ip.packet, ip.payloadOffset, ip.payloadLength)}`;
}

function malformedText(packet: Packet, start: number, length: number): string {
  const more = length > SHOWN_BYTES ? " ..." : "";
  let shown = "";
  for (let i = 0; i < length && i < SHOWN_BYTES; i++) shown += ` ${hex(packet.bytes[start + i]!, 2)}`;
  return `malformed: ${length} bytes${shown}${more}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
