/** Walk over the IPv6 extension headers up to the upper layer (RFC 8200 section 4). */

import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { Protocol } from "./protocol.ts";

// Specification: RFC 8200 sections 4.3, 4.4, 4.5 and 4.6, RFC 4302 section 2
//
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |  Next Header  |  Hdr Ext Len  | Routing Type  | Segments Left |  routing; options otherwise
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |  Next Header  |   Reserved    |      Fragment Offset    |Res|M|  fragment
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                         Identification                        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const { IPV6_HEADER, IPV6_NEXT_HEADER } = field;
const { EXTENSION_LENGTH, EXTENSION_MIN_LENGTH, FRAGMENT_HEADER, FRAGMENT_WORD } = field;
const { FRAGMENT_OFFSET_IPV6, MORE_FRAGMENTS_IPV6, ROUTING_TYPE, ROUTING_ADDRESSES } = field;
const { ROUTING_SOURCE, ROUTING_MOBILE, ROUTING_SEGMENTS } = field;

// Implementation
const MAX_EXTENSIONS = 16;

/** Result of the last {@linkcode walkExtensions} that returned `true`. */
export const chain = {
  /** Upper-layer protocol; in a later fragment, the next header of its Fragment header. */
  protocol: 0,
  /** Offset of the upper layer. */
  upperOffset: 0,
  /** Offset of the Fragment header; if there are several, the one that is not an atomic fragment's; -1 for none. */
  fragment: -1,
  /** Offset of the last Routing header; -1 for none. */
  routing: -1,
};

/** Reports whether a next header is an extension header with a known length. */
export function isExtension(type: number): boolean {
  return type === Protocol.HopByHop || type === Protocol.Routing || type === Protocol.Fragment ||
    type === Protocol.Ah || type === Protocol.DestinationOptions;
}

/** Returns the length of the extension header at `at`, which has this type (bytes). */
export function extensionLength(bytes: Uint8Array, at: number, type: number): number {
  if (type === Protocol.Fragment) return FRAGMENT_HEADER;
  const units = bytes[at + EXTENSION_LENGTH]!;
  // RFC 4302 section 2.2: in units of 4 bytes, less 2
  return type === Protocol.Ah ? (units + 2) << 2 : (units + 1) << 3;
}

/**
 * Walks the headers from `at`, the first of which has type `next`, and fills in {@linkcode chain}. Returns `false` for
 * headers that reach beyond `end`, more than 16 headers, Hop-by-Hop Options after another header, and a fragment inside
 * a fragment.
 */
export function walkExtensions({ bytes, view }: Packet, next: number, at: number, end: number): boolean {
  let fragment = -1;
  let routing = -1;
  let isFragment = false;
  for (let count = 0; isExtension(next); count++) {
    // Section 4.1: Hop-by-Hop Options come first or not at all. RFC 8504 section 5.3: hosts may limit the number of headers.
    if (count === MAX_EXTENSIONS || next === Protocol.HopByHop && count > 0) return false;
    if (at + EXTENSION_MIN_LENGTH > end) return false;
    const length = extensionLength(bytes, at, next);
    if (at + length > end) return false;
    const type = next;
    const header = at;
    next = bytes[at]!;
    at += length;
    if (type === Protocol.Routing) routing = header;
    if (type === Protocol.Fragment) {
      const word = view.getUint16(header + FRAGMENT_WORD);
      const fragments = (word & (FRAGMENT_OFFSET_IPV6 | MORE_FRAGMENTS_IPV6)) !== 0;
      // No node fragments a fragment, and a filter that reads one of the two headers would miss the other.
      if (fragments && isFragment) return false;
      if (fragments || fragment < 0) fragment = header;
      isFragment ||= fragments;
      // Section 4.5: a later fragment continues with bytes from the middle of the packet.
      if ((word & FRAGMENT_OFFSET_IPV6) !== 0) break;
    }
  }
  chain.protocol = next;
  chain.upperOffset = at;
  chain.fragment = fragment;
  chain.routing = routing;
  return true;
}

/** Finds the first header of this type from `at`, where a header of type `next` starts, to `end`; -1 for none. */
export function findExtension(
  bytes: Uint8Array,
  next: number,
  at: number,
  end: number,
  type: number,
): number {
  while (at < end) {
    if (next === type) return at;
    const length = extensionLength(bytes, at, next);
    next = bytes[at]!;
    at += length;
  }
  return -1;
}

/** Returns the offset of the Next Header field that states the type of the header at `place`. */
export function nextHeaderField(bytes: Uint8Array, start: number, place: number): number {
  let field = start + IPV6_NEXT_HEADER;
  let type = bytes[field]!;
  for (let at = start + IPV6_HEADER; at < place; type = bytes[field]!) {
    field = at;
    at += extensionLength(bytes, at, type);
  }
  return field;
}

/** Returns the offset of the last address in the Routing header at `routing`; -1 for an unknown type. */
export function lastAddress(bytes: Uint8Array, routing: number): number {
  const length = extensionLength(bytes, routing, Protocol.Routing);
  if (length < ROUTING_ADDRESSES + 16) return -1;
  switch (bytes[routing + ROUTING_TYPE]) {
    case ROUTING_SOURCE:
      return routing + length - 16;
    case ROUTING_MOBILE:
    case ROUTING_SEGMENTS: // RFC 8754 section 2: segments are in reverse order
      return routing + ROUTING_ADDRESSES;
    default:
      return -1;
  }
}
