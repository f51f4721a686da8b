/** Formats ICMPv6 messages like tcpdump (its print-icmp6.c). */

import { DST_PORT, IPV6_DST, IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_SRC } from "./header_fields.ts";
import { formatIpv4, formatIpv6 } from "./address.ts";
import { LISTENER_DONE, LISTENER_QUERY, LISTENER_REPORT, LISTENER_REPORT_2 } from "./icmp_query.ts";
import { QuotedPacket } from "./quoted_packet.ts";
import { Icmpv6 } from "./icmpv6.ts";
import { Protocol } from "./protocol.ts";

// Specification: IANA "ICMPv6 Parameters"
const ROUTER_RENUMBERING = 138;
const NODE_QUERY = 139;
const NODE_REPLY = 140;
const HOME_AGENT_REQUEST = 144;
const MOBILE_PREFIX_REQUEST = 146;
const TYPES: Readonly<Record<number, string>> = {
  1: "destination unreachable",
  2: "packet too big",
  3: "time exceeded in-transit",
  4: "parameter problem",
  128: "echo request",
  129: "echo reply",
  130: "multicast listener query",
  131: "multicast listener report",
  132: "multicast listener done",
  133: "router solicitation",
  134: "router advertisement",
  135: "neighbor solicitation",
  136: "neighbor advertisement",
  137: "redirect",
  138: "router renumbering",
  139: "who-are-you request",
  140: "who-are-you reply",
  141: "inverse neighbor solicitation",
  142: "inverse neighbor advertisement",
  143: "multicast listener report v2",
  144: "ha discovery request",
  145: "ha discovery reply",
  146: "mobile router solicitation",
  147: "mobile router advertisement",
};
const UNREACHABLE: Readonly<Record<number, string>> = {
  0: "unreachable route",
  1: "unreachable prohibited",
  2: "beyond scope",
  3: "unreachable address",
  4: "unreachable port",
};
const PROBLEMS = ["erroneous", "next header", "option", "incomplete header chain"];
const RENUMBERING: Readonly<Record<number, string>> = {
  0: "command",
  1: "result",
  255: "sequence number reset",
};
/** RFC 4620 section 4: types of node information. */
const NODE_QUERY_TYPES = ["noop", "supported qtypes", "DNS name", "node addresses"];
/** RFC 2710 section 3, RFC 3810 section 5.1: bytes after the first 8, in both versions. */
const QUERY_1 = 16;
const QUERY_2 = 20;

const quoted = new QuotedPacket();

/** Formats a message, without its length. */
export function icmpv6Text(icmp: Icmpv6): string {
  const { type, payloadOffset, payloadLength, rest } = icmp;
  const { bytes } = icmp.packet;
  const name = TYPES[type] ?? `unknown icmp6 type (${type})`;
  const address = (at = 0): string => formatIpv6(bytes, payloadOffset + at);
  switch (type) {
    case Icmpv6.EchoRequest:
    case Icmpv6.EchoReply:
      return `${name}, id ${icmp.id}, seq ${icmp.seq}`;
    case Icmpv6.DestinationUnreachable:
    case Icmpv6.PacketTooBig:
    case Icmpv6.TimeExceeded:
    case Icmpv6.ParameterProblem:
      return errorText(icmp, name);
    case LISTENER_QUERY:
      return queryText(icmp, name);
    case LISTENER_REPORT:
    case LISTENER_DONE:
      return payloadLength < QUERY_1 ? name : listenerText(icmp, name);
    case LISTENER_REPORT_2:
      return `${name}, ${rest & 0xffff} group record(s)`;
    case Icmpv6.NeighborSolicitation:
      return payloadLength < 16 ? name : `${name}, who has ${address()}`;
    case Icmpv6.NeighborAdvertisement:
      return payloadLength < 16 ? name : `${name}, tgt is ${address()}`;
    case Icmpv6.Redirect:
      return payloadLength < 32 ? name : `${name}, ${address(16)} to ${address()}`;
    case ROUTER_RENUMBERING:
      return `${name}, ${RENUMBERING[icmp.code] ?? `code-#${icmp.code}`}, seq=${rest}`;
    case NODE_QUERY:
    case NODE_REPLY:
      return nodeText(icmp, name);
    case HOME_AGENT_REQUEST:
    case MOBILE_PREFIX_REQUEST:
      return `${name}, id 0x${icmp.id.toString(16).padStart(4, "0")}`;
    default:
      return name;
  }
}

function errorText(icmp: Icmpv6, name: string): string {
  const { type, code, payloadOffset, rest } = icmp;
  const { bytes } = icmp.packet;
  const hasQuote = icmp.quotedLength >= IPV6_HEADER;
  const dst = hasQuote ? formatIpv6(bytes, payloadOffset + IPV6_DST) : "";
  switch (type) {
    case Icmpv6.PacketTooBig:
      return `${name}, mtu ${rest}`;
    case Icmpv6.ParameterProblem: {
      const problem = PROBLEMS[code];
      return problem === undefined ? `${name}, code-#${code}` : `${name}, ${problem} - octet ${rest}`;
    }
    case Icmpv6.TimeExceeded:
      if (code === 0) return hasQuote ? `${name} for ${dst}` : name;
      return code === 1 ? `${name} (reassembly)` : `${name}, unknown code (${code})`;
  }
  const reason = `${name}, ${UNREACHABLE[code] ?? `unknown unreach code (${code})`}`;
  if (!hasQuote || code > 4) return reason;
  if (code === 2) return `${reason} ${dst}, source address ${formatIpv6(bytes, payloadOffset + IPV6_SRC)}`;
  return code === 4 ? `${reason}, ${dst} ${quotedPort(icmp)}` : `${reason} ${dst}`;
}

/** Formats the destination port of the quoted packet, after its extension headers. */
function quotedPort(icmp: Icmpv6): string {
  const { bytes, view } = icmp.packet;
  if (!quoted.read(icmp)) return portText(bytes[icmp.quotedOffset + IPV6_NEXT_HEADER]!, -1);
  const { protocol, upperOffset, end, fragmentOffset } = quoted;
  const isKnown = protocol === Protocol.Udp || protocol === Protocol.Tcp;
  const hasPort = isKnown && fragmentOffset === 0 && upperOffset + DST_PORT + 2 <= end;
  return portText(protocol, hasPort ? view.getUint16(upperOffset + DST_PORT) : -1);
}

/** Formats a protocol and port for errors of both versions; -1 for no port. */
export function portText(protocol: number, port: number): string {
  const name = protocol === Protocol.Udp ? "udp" : protocol === Protocol.Tcp ? "tcp" : `protocol ${protocol}`;
  return port < 0 ? name : `${name} port ${port}`;
}

function listenerText({ rest, payloadOffset, packet }: Icmpv6, name: string): string {
  return `${name} max resp delay: ${rest >>> 16} addr: ${formatIpv6(packet.bytes, payloadOffset)}`;
}

function queryText(icmp: Icmpv6, name: string): string {
  const { payloadOffset, payloadLength, packet: { bytes, view } } = icmp;
  if (payloadLength === QUERY_1) return listenerText(icmp, name);
  if (payloadLength < QUERY_2) return `${name} unknown-version (len ${payloadLength + 8})`;
  const sources = view.getUint16(payloadOffset + 18);
  let text = "";
  if (sources > 0) {
    text = payloadLength < QUERY_2 + 16 * sources ? " [invalid number of sources]" : `, ${sources} source(s)`;
  }
  return `${name} v2 [gaddr ${formatIpv6(bytes, payloadOffset)}${text}]`;
}

/** Formats the subject of a node information query (RFC 4620), without names. */
function nodeText(icmp: Icmpv6, name: string): string {
  const { type, code, rest, payloadOffset, payloadLength, packet: { bytes, view } } = icmp;
  if (payloadLength < 8) return name;
  const kind = rest >>> 16;
  const queryType = NODE_QUERY_TYPES[kind] ?? "unknown";
  if (type === NODE_REPLY) {
    return `${name} node information reply (${code === 0 ? queryType : code === 1 ? "refused" : "unknown"})`;
  }
  const at = payloadOffset + 8;
  let subject = "";
  if (kind > 1 && code === 0 && payloadLength >= 24) subject = `, subject=${formatIpv6(bytes, at)}`;
  if (kind > 1 && code === 2 && payloadLength >= 12) subject = `, subject=${formatIpv4(view.getUint32(at))}`;
  if (kind > 1 && code === 1) subject = ", subject=DNS name";
  return `${name} node information query (${queryType}${subject})`;
}
