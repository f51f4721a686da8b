/** Checks packets that ICMP errors quote, and translates IPv4 ones with all checksums over them. */

import * as field from "../../wire/header_fields.ts";
import { adjust, difference, difference32 } from "../../core/checksum.ts";
import { adjustTransport, checksumField } from "../../wire/transport_checksum.ts";
import { isIcmpError } from "../../wire/icmp_query.ts";
import type { Icmpv4 } from "../../wire/icmpv4.ts";
import type { Icmpv6 } from "../../wire/icmpv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { QuotedPacket } from "../../wire/quoted_packet.ts";

// Specification
const { FRAGMENT_OFFSET, ICMP_ID, IPV4_CHECKSUM, IPV4_FLAGS, IPV4_HEADER, IPV4_PROTOCOL } = field;

/** View of the packet that the current error quotes. */
const quoted = new QuotedPacket();

/** Reports whether an error quotes a whole IP header and not another error, whose quotation would stay untranslated. */
export function quotesPacket(icmp: Icmpv4 | Icmpv6, version: 4 | 6): boolean {
  return quoted.read(icmp) && (quoted.icmpType < 0 || !isIcmpError(version, quoted.icmpType));
}

/**
 * Replaces the address at offset `at` of the quoted IPv4 header and, if `port` is not negative, the port at offset
 * `portAt` of the quoted transport header or the identifier of an ICMP query. Adjusts all quoted checksums and that of
 * the error. The caller has checked that the replaced fields are quoted.
 */
export function setQuoted(icmp: Icmpv4, at: number, address: number, portAt: number, port: number): void {
  const { packet, quotedOffset: start } = icmp;
  const { bytes, view } = packet;
  const end = start + icmp.quotedLength;
  const protocol = bytes[start + IPV4_PROTOCOL]!;
  const headerLength = (bytes[start]! & 0x0f) << 2;
  const transport = start + headerLength;

  const addressChange = difference32(view.getUint32(start + at), address);
  view.setUint32(start + at, address);
  let change = addressChange;
  const header = view.getUint16(start + IPV4_CHECKSUM);
  const headerAfter = adjust(header, addressChange);
  view.setUint16(start + IPV4_CHECKSUM, headerAfter);
  change += difference(header, headerAfter);

  let covered = protocol === Protocol.Icmp ? 0 : addressChange;
  if (port >= 0) {
    const where = transport + (protocol === Protocol.Icmp ? ICMP_ID : portAt);
    const portChange = difference(view.getUint16(where), port);
    view.setUint16(where, port);
    change += portChange;
    covered += portChange;
  }
  const hasTransport = headerLength >= IPV4_HEADER &&
    (view.getUint16(start + IPV4_FLAGS) & FRAGMENT_OFFSET) === 0;
  const field = transport + checksumField(protocol);
  if (hasTransport && field >= transport && field + 2 <= end && covered !== 0) {
    const before = view.getUint16(field);
    // RFC 768: zero means no checksum.
    if (before !== 0 || protocol !== Protocol.Udp) {
      let after = adjust(before, covered);
      if (after === 0 && protocol === Protocol.Udp) after = 0xffff;
      view.setUint16(field, after);
      change += difference(before, after);
    }
  }
  adjustTransport(packet, icmp.start, icmp.ip.payloadOffset + icmp.ip.payloadLength, Protocol.Icmp, change);
}
