/** Translates IPv4 packets to IPv6 (RFC 7915 section 4). */

import { difference, sum } from "../../core/checksum.ts";
import type { Packet } from "../../core/mod.ts";
import * as field from "../../wire/header_fields.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Protocol } from "../../wire/protocol.ts";
import {
  adjustPseudoHeader,
  coveredLength,
  isPartial,
  pseudoHeaderSumIpv4,
  pseudoHeaderSumIpv6,
  writeTransportChecksum,
} from "../../wire/transport_checksum.ts";
import { messageToIpv6, NONE, restToIpv6 } from "./_icmp_messages.ts";
import {
  echoToIpv6,
  extensions,
  finishError,
  LengthField,
  quoted,
  quotedFields,
  quotedToIpv6,
  readExtensions,
} from "./_quoted.ts";
import {
  foldOnce,
  headersLength,
  type Ipv6Addresses,
  replaceHeaders,
  sumOfAddresses,
  Untranslatable,
  writeIpv6,
} from "./_translation.ts";

// Specification: IPv4 options, RFC 791 section 3.1
const {
  END_OF_OPTIONS,
  ICMP_HEADER,
  IPV4_HEADER,
  IPV6_DST,
  IPV6_HEADER,
  IPV6_MIN_MTU,
  IPV6_SRC,
  NO_OPERATION,
  UDP_CHECKSUM,
  UDP_HEADER,
} = field;
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;

/**
 * Translates an IPv4 packet to IPv6 with these addresses, as `toIpv4` does. A UDP packet without a checksum gets
 * one. A packet that routers may fragment gets a Fragment header if it becomes longer than 1280 bytes: it must then be
 * fragmented (RFC 7915 section 4.1). The time to live is kept.
 *
 * An ICMP error is truncated to 1280 bytes and keeps its extensions (RFC 4884) if ICMPv6 has room for them: in destination
 * unreachable and time exceeded.
 *
 * **Limits**: super-packets get no Fragment header.
 *
 * @param ip Header of the packet, if the caller has it.
 */
export function toIpv6(
  packet: Packet,
  addresses: Ipv6Addresses,
  ip: Ipv4 | undefined = Ipv4.of(packet),
): Untranslatable | undefined {
  if (ip === undefined) return Untranslatable.Malformed;
  const { bytes, view } = packet;
  const { start, payloadOffset: upper, payloadLength: length, isFragment, fragmentOffset, ttl, id } = ip;
  let { protocol } = ip;
  const more = ip.moreFragments;
  const isFragmentable = !ip.dontFragment && packet.segmentSize === 0;
  const service = bytes[start + 1]!;
  if (sum(bytes, start, upper - start) !== 0xffff) return Untranslatable.Checksum;
  if (protocol === Protocol.Icmpv6 || protocol === Protocol.Ah) return Untranslatable.Protocol;
  if (upper - start > IPV4_HEADER && isRouted(bytes, start + IPV4_HEADER, upper)) {
    return Untranslatable.SourceRoute;
  }
  const end = upper + length;
  packet.length = end - packet.offset;
  const { src, dst } = addresses;
  let at = upper;
  if (protocol === Protocol.Icmp) {
    if (isFragment) return Untranslatable.FragmentedIcmp;
    packet.finish();
    const icmp = Icmpv4.of(packet);
    if (icmp === undefined) return Untranslatable.Malformed;
    const message = messageToIpv6(icmp.type, icmp.code);
    if (message === NONE) return Untranslatable.Message;
    if (icmp.quotedOffset < 0) echoToIpv6(packet, upper, end, length, message, src, dst);
    else {
      if (!icmp.checksumValid) return Untranslatable.Checksum;
      const { rest } = icmp;
      readExtensions(icmp);
      const reason = quotedToIpv6(packet, icmp, addresses);
      if (reason !== undefined) return reason;
      const rest6 = restToIpv6(message, rest, quotedFields.length - IPV6_HEADER + IPV4_HEADER);
      if (rest6 === NONE) return Untranslatable.Message;
      at = quoted.upperOffset - headersLength(quotedFields.id) - ICMP_HEADER;
      const isExtensible = message >> 8 === Icmpv6.DestinationUnreachable ||
        message >> 8 === Icmpv6.TimeExceeded;
      if (!isExtensible) extensions.length = 0;
      finishError(packet, at, at + IPV6_MIN_MTU - IPV6_HEADER, message, rest6, LengthField.Ipv6);
    }
    protocol = Protocol.Icmpv6;
  } else if (fragmentOffset === 0) {
    const change = difference(pseudoHeaderSumIpv4(ip.src, ip.dst, 0, 0), sumOfAddresses(src, dst));
    if (protocol !== Protocol.Udp) adjustPseudoHeader(packet, upper, end, protocol, change);
    else if (length < UDP_HEADER) return Untranslatable.Malformed;
    else if (view.getUint16(upper + UDP_CHECKSUM) !== 0 || isPartial(packet, upper)) {
      adjustPseudoHeader(packet, upper, end, protocol, change);
    } else if (isFragment) return Untranslatable.NoChecksum;
    else writeUdpChecksum(packet, upper, end, src, dst);
  }
  const isTooLong = packet.offset + packet.length - at + IPV6_HEADER > IPV6_MIN_MTU;
  const fragmentId = isFragment || isFragmentable && isTooLong ? id : -1;
  if (at - packet.offset + packet.headroom < headersLength(fragmentId)) return Untranslatable.TooLong;
  replaceHeaders(packet, at, headersLength(fragmentId));
  writeIpv6(
    packet,
    packet.offset,
    packet.length,
    service,
    ttl,
    protocol,
    src,
    dst,
    fragmentId,
    fragmentOffset,
    more,
  );
  if (at !== upper) {
    const covered = packet.length - IPV6_HEADER;
    const pseudoHeader = pseudoHeaderSumIpv6(
      bytes,
      packet.offset + IPV6_SRC,
      packet.offset + IPV6_DST,
      protocol,
      covered,
    );
    writeTransportChecksum(packet, at, at + covered, protocol, pseudoHeader);
  }
  return undefined;
}

/** Reports whether the options hold a source route with hops left. */
function isRouted(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end && bytes[at] !== END_OF_OPTIONS;) {
    const type = bytes[at]!;
    if (type === NO_OPERATION) {
      at++;
      continue;
    }
    const length = at + 1 < end ? bytes[at + 1]! : 0;
    if (length < 2 || at + length > end) return false;
    const isRoute = type === LOOSE_SOURCE_ROUTE || type === STRICT_SOURCE_ROUTE;
    if (isRoute && length > 2 && bytes[at + 2]! <= length) return true;
    at += length;
  }
  return false;
}

/** Writes the checksum of a UDP packet; that of a super-packet stays partial. */
function writeUdpChecksum(
  packet: Packet,
  upper: number,
  end: number,
  src: Uint8Array,
  dst: Uint8Array,
): void {
  const length = packet.segmentSize === 0 ? coveredLength(packet, upper, end, Protocol.Udp) : end - upper;
  const pseudo = foldOnce(foldOnce(sumOfAddresses(src, dst) + Protocol.Udp + length));
  if (packet.segmentSize === 0) {
    return writeTransportChecksum(packet, upper, upper + length, Protocol.Udp, pseudo);
  }
  packet.view.setUint16(upper + UDP_CHECKSUM, pseudo);
  packet.checksumStart = upper - packet.offset;
  packet.checksumOffset = UDP_CHECKSUM;
}
