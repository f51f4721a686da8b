/** Translates IPv6 packets to IPv4 (RFC 7915 section 5). */

import { difference, sum } from "../../core/checksum.ts";
import type { Packet } from "../../core/mod.ts";
import * as field from "../../wire/header_fields.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { longestLength } from "../../split/stage_segmenter.ts";
import { Protocol } from "../../wire/protocol.ts";
import {
  adjustPseudoHeader,
  pseudoHeaderSumIpv4,
  writeTransportChecksum,
} from "../../wire/transport_checksum.ts";
import { messageToIpv4, NONE, restToIpv4 } from "./_icmp_messages.ts";
import { echoToIpv4, finishError, LengthField, quoted, quotedToIpv4, readExtensions } from "./_quoted.ts";
import {
  type Ipv4Addresses,
  MAX_FRAGMENTABLE,
  replaceHeaders,
  Untranslatable,
  writeIpv4,
} from "./_translation.ts";

// Specification
const {
  DONT_FRAGMENT,
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  FRAGMENT_WORD,
  ICMP_HEADER,
  ICMPV4_MAX_ERROR,
  IPV4_HEADER,
  IPV4_MAX_LENGTH,
  IPV6_SRC,
  MORE_FRAGMENTS,
  ROUTING_SEGMENTS_LEFT,
} = field;

/**
 * Translates an IPv6 packet to IPv4 with these addresses; `id` is for packets that routers may fragment. Returns a reason
 * if it cannot, and the packet must be dropped. Wrong checksums stay wrong, partial ones partial; super-packets stay
 * super-packets. The hop limit is kept.
 *
 * An ICMP error is truncated to 576 bytes (RFC 1812 section 4.3.2.3) and keeps its extensions (RFC 4884), unless they are
 * longer than 420 bytes or do not fit the slot.
 *
 * @param ip Header of the packet, if the caller has it.
 */
export function toIpv4(
  packet: Packet,
  addresses: Ipv4Addresses,
  id: number,
  ip: Ipv6 | undefined = Ipv6.of(packet),
): Untranslatable | undefined {
  if (ip === undefined) return Untranslatable.Malformed;
  const { bytes, view } = packet;
  const { start, payloadOffset: upper, payloadLength: length, trafficClass, hopLimit } = ip;
  let { protocol } = ip;
  if (protocol === Protocol.Icmp || ip.extension(Protocol.Ah) >= 0) return Untranslatable.Protocol;
  const routing = ip.extension(Protocol.Routing);
  if (routing >= 0 && bytes[routing + ROUTING_SEGMENTS_LEFT] !== 0) return Untranslatable.SourceRoute;
  if (length + IPV4_HEADER > IPV4_MAX_LENGTH) return Untranslatable.TooLong;
  packet.length = upper + length - packet.offset;
  const { src, dst } = addresses;
  const ownId = id;
  let flags = 0;
  const fragment = ip.fragmentHeader;
  if (ip.isFragment && upper !== fragment + FRAGMENT_HEADER) return Untranslatable.FragmentedHeaders;
  if (fragment >= 0) {
    const word = view.getUint16(fragment + FRAGMENT_WORD);
    flags = word >> 3 | (word & 1 ? MORE_FRAGMENTS : 0);
    id = view.getUint16(fragment + FRAGMENT_ID + 2);
  } else if (longestLength(packet, ip) - (upper - start) + IPV4_HEADER > MAX_FRAGMENTABLE) {
    flags = DONT_FRAGMENT;
    id = 0;
  }
  let at = upper;
  if (protocol === Protocol.Icmpv6) {
    if (ip.isFragment) return Untranslatable.FragmentedIcmp;
    packet.finish();
    const icmp = Icmpv6.of(packet);
    if (icmp === undefined) return Untranslatable.Malformed;
    const message = messageToIpv4(icmp.type, icmp.code);
    if (message === NONE) return Untranslatable.Message;
    if (icmp.quotedOffset < 0) {
      echoToIpv4(packet, start, upper, upper + length, length, message);
    } else {
      const rest = restToIpv4(message, icmp.rest);
      if (rest === NONE) return Untranslatable.Message;
      if (!icmp.checksumValid) return Untranslatable.Checksum;
      readExtensions(icmp);
      const reason = quotedToIpv4(packet, icmp, addresses);
      if (reason !== undefined) return reason;
      at = quoted.upperOffset - IPV4_HEADER - ICMP_HEADER;
      finishError(packet, at, at + ICMPV4_MAX_ERROR - IPV4_HEADER, message, rest, LengthField.Ipv4);
      writeTransportChecksum(packet, at, packet.offset + packet.length, Protocol.Icmp, 0);
      if (fragment < 0) {
        flags = 0;
        id = ownId;
      }
    }
    protocol = Protocol.Icmp;
  } else if (ip.fragmentOffset === 0) {
    const change = difference(sum(bytes, start + IPV6_SRC, 32), pseudoHeaderSumIpv4(src, dst, 0, 0));
    adjustPseudoHeader(packet, upper, upper + length, protocol, change);
  }
  replaceHeaders(packet, at, IPV4_HEADER);
  writeIpv4(packet, packet.offset, packet.length, trafficClass, id, flags, hopLimit, protocol, src, dst);
  return undefined;
}
