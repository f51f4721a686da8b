/** IP packets in fragments: the first one in its packet's slot, the others in new slots. */

import {
  DONT_FRAGMENT,
  END_OF_OPTIONS,
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  FRAGMENT_OFFSET,
  FRAGMENT_WORD,
  IPV4_CHECKSUM,
  IPV4_FLAGS,
  IPV4_HEADER,
  IPV4_MAX_LENGTH,
  IPV4_SRC,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SRC,
  MORE_FRAGMENTS,
  MORE_FRAGMENTS_IPV6,
  NO_OPERATION,
} from "../wire/header_fields.ts";
import { FragmentIds } from "./fragment_ids.ts";
import { copyMetadata } from "../core/copy_packet.ts";
import { replaceWithSegment } from "../wire/packet_parts.ts";
import { checksum, sum } from "../core/checksum.ts";
import type { Packet, StageContext } from "../core/mod.ts";
import { Ip, Protocol } from "../wire/ip.ts";
import type { Ipv4 } from "../wire/ipv4.ts";
import type { Ipv6 } from "../wire/ipv6.ts";
import { Segmenter } from "./segmenter.ts";

// Specification: options, RFC 791 section 3.1
const COPIED = 0x80;

// Implementation: why a packet cannot be fragmented
const NO_ROOM = "no room for fragments";
const TOO_LONG = "fragment beyond the longest packet";

/** Fragments packets for one MTU. */
export class Fragmenter {
  /** The longest fragment (bytes). */
  mtu: number;
  readonly #segments = new Segmenter();
  /** What a packet becomes, in order. */
  readonly #pieces: Packet[] = [];
  #count = 0;
  readonly #ids = new FragmentIds();

  /** @param mtu The longest fragment (bytes). */
  constructor(mtu: number) {
    this.mtu = mtu;
  }

  /** Fragments an IP packet, even one that forbids it, and emits the fragments onward; drops it where that cannot be. */
  fragment(packet: Packet, context: StageContext): void {
    this.#count = 0;
    const reason = packet.segmentSize === 0
      ? this.#split(packet, packet, context)
      : this.#splitSegments(packet, context);
    for (let i = 0; i < this.#count; i++) {
      const piece = this.#pieces[i]!;
      if (reason === undefined) context.emit(piece, context.direction);
      else if (piece !== packet) context.drop(piece, reason);
    }
    if (reason !== undefined) context.drop(packet, reason);
  }

  /** Splits each segment of a super-packet; the last one takes its slot. */
  #splitSegments(packet: Packet, context: StageContext): string | undefined {
    const segments = this.#segments;
    const malformed = segments.start(packet);
    if (malformed !== undefined) return malformed;
    while (segments.remaining > 0) {
      const segment = segments.next(packet.pool);
      if (segment === undefined) return NO_ROOM;
      if (segments.remaining === 0) {
        replaceWithSegment(packet, segment);
        return this.#split(packet, packet, context);
      }
      const reason = this.#split(segment, undefined, context);
      packet.pool.give(segment);
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  /** Makes pieces of an ordinary packet; the first is in the slot of `first`, or in a new one. */
  #split(packet: Packet, first: Packet | undefined, context: StageContext): string | undefined {
    // Padding is no part of it.
    packet.length = Ip.of(packet)!.totalLength;
    packet.finish();
    const ip = Ip.of(packet);
    // The partial checksum may have stood in the IP header, which then is another one.
    if (ip === undefined) return "malformed";
    if (ip.totalLength <= this.mtu) {
      const piece = first ?? context.take(packet.length);
      if (piece === undefined) return NO_ROOM;
      if (piece !== packet) {
        copyMetadata(piece, packet);
        piece.bytes.copyWithin(piece.offset, ip.start, ip.start + packet.length);
      }
      this.#pieces[this.#count++] = piece;
      return undefined;
    }
    return ip.version === 4 ? this.#splitIpv4(ip, first, context) : this.#splitIpv6(ip, first, context);
  }

  #splitIpv4(ip: Ipv4, first: Packet | undefined, context: StageContext): string | undefined {
    const { packet, start, headerLength, payloadOffset, payloadLength } = ip;
    if (sum(packet.bytes, start, headerLength) !== 0xffff) return "wrong header checksum";
    if (ip.fragmentOffset + payloadLength > IPV4_MAX_LENGTH) return TOO_LONG;
    if (ip.dontFragment && !ip.isFragment) {
      ip.id = this.#ids.next(this.#ids.startOf(packet.view, start + IPV4_SRC, 2, ip.protocol));
    }
    const flags = packet.view.getUint16(start + IPV4_FLAGS) & ~DONT_FRAGMENT;
    const laterHeader = IPV4_HEADER + copiedOptions(packet, start, headerLength, -1);
    const size = this.mtu - headerLength & ~7;
    const laterSize = this.mtu - laterHeader & ~7;
    const piece = first ?? context.take(headerLength + size);
    if (piece === undefined) return NO_ROOM;
    this.#pieces[this.#count++] = piece;
    for (let at = size; at < payloadLength; at += laterSize) {
      const length = Math.min(laterSize, payloadLength - at);
      const later = context.take(laterHeader + length);
      if (later === undefined) return NO_ROOM;
      this.#pieces[this.#count++] = later;
      copyMetadata(later, packet);
      later.bytes.copyWithin(later.offset, start, start + IPV4_HEADER);
      copiedOptions(packet, start, headerLength, later.offset + IPV4_HEADER);
      later.bytes[later.offset] = 4 << 4 | laterHeader >> 2;
      later.bytes.copyWithin(later.offset + laterHeader, payloadOffset + at, payloadOffset + at + length);
      const more = at + length < payloadLength ? MORE_FRAGMENTS : flags & MORE_FRAGMENTS;
      const offset = (flags & FRAGMENT_OFFSET) + (at >> 3);
      finishIpv4(later, laterHeader, more | offset);
    }
    if (piece !== packet) {
      copyMetadata(piece, packet);
      piece.bytes.copyWithin(piece.offset, start, start + headerLength + size);
    }
    piece.length = headerLength + size;
    finishIpv4(piece, headerLength, MORE_FRAGMENTS | flags & FRAGMENT_OFFSET);
    return undefined;
  }

  #splitIpv6(ip: Ipv6, first: Packet | undefined, context: StageContext): string | undefined {
    const { packet, start } = ip;
    const { bytes, view } = packet;
    const existing = ip.fragmentHeader;
    const field = existing < 0 ? unfragmentable(ip) : -1;
    // What stands before the Fragment header, and is in every piece.
    const headerLength = (existing >= 0 ? existing : endOf(bytes, start, field)) - start;
    const from = start + headerLength + (existing >= 0 ? FRAGMENT_HEADER : 0);
    const size = this.mtu - headerLength - FRAGMENT_HEADER & ~7;
    if (size < 8) return "headers longer than the mtu";
    const next = bytes[existing >= 0 ? existing : field]!;
    const word = existing >= 0 ? view.getUint16(existing + FRAGMENT_WORD) : 0;
    // RFC 8200 section 4.5: unlike IPv4's, a packet's identification is the same for all protocols.
    const id = existing >= 0
      ? view.getUint32(existing + FRAGMENT_ID)
      : this.#ids.next(this.#ids.startOf(view, start + IPV6_SRC, 8, 0));
    const length = start + ip.totalLength - from;
    if (ip.fragmentOffset + length > IPV4_MAX_LENGTH) return TOO_LONG;
    const whole = headerLength + FRAGMENT_HEADER;
    if (first !== undefined && existing < 0 && packet.headroom < FRAGMENT_HEADER) return "no headroom";
    const piece = first ?? context.take(whole + size);
    if (piece === undefined) return NO_ROOM;
    this.#pieces[this.#count++] = piece;
    if (existing < 0) bytes[field] = Protocol.Fragment;
    for (let at = size; at < length; at += size) {
      const part = Math.min(size, length - at);
      const later = context.take(whole + part);
      if (later === undefined) return NO_ROOM;
      this.#pieces[this.#count++] = later;
      copyMetadata(later, packet);
      later.bytes.copyWithin(later.offset, start, start + headerLength);
      later.bytes.copyWithin(later.offset + whole, from + at, from + at + part);
      finishIpv6(later, headerLength, next, word + at | (at + part < length ? MORE_FRAGMENTS_IPV6 : 0), id);
    }
    if (piece !== packet) copyMetadata(piece, packet);
    else if (existing < 0) packet.offset -= FRAGMENT_HEADER;
    piece.bytes.copyWithin(piece.offset, start, start + headerLength);
    piece.bytes.copyWithin(piece.offset + whole, from, from + size);
    piece.length = whole + size;
    finishIpv6(piece, headerLength, next, word | MORE_FRAGMENTS_IPV6, id);
    return undefined;
  }
}

function finishIpv4({ bytes, view, offset, length }: Packet, headerLength: number, flags: number): void {
  view.setUint16(offset + IPV4_TOTAL_LENGTH, length);
  view.setUint16(offset + IPV4_FLAGS, flags);
  view.setUint16(offset + IPV4_CHECKSUM, 0);
  view.setUint16(offset + IPV4_CHECKSUM, checksum(bytes, offset, headerLength));
}

function finishIpv6(
  { bytes, view, offset, length }: Packet,
  headerLength: number,
  next: number,
  word: number,
  id: number,
): void {
  view.setUint16(offset + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
  const at = offset + headerLength;
  bytes[at] = next;
  bytes[at + 1] = 0;
  view.setUint16(at + FRAGMENT_WORD, word);
  view.setUint32(at + FRAGMENT_ID, id);
}

/**
 * Copies the options that belong into every fragment to `target`, unless it is -1, and returns their length with padding.
 */
function copiedOptions({ bytes }: Packet, start: number, headerLength: number, target: number): number {
  const end = start + headerLength;
  let length = 0;
  for (let at = start + IPV4_HEADER; at < end;) {
    const type = bytes[at]!;
    if (type === END_OF_OPTIONS) break;
    const size = type === NO_OPERATION ? 1 : at + 1 < end ? bytes[at + 1]! : 0;
    if (size < 1 || type !== NO_OPERATION && size < 2 || at + size > end) break;
    if ((type & COPIED) !== 0) {
      if (target >= 0) bytes.copyWithin(target + length, at, at + size);
      length += size;
    }
    at += size;
  }
  const padded = length + 3 & ~3;
  if (target >= 0) bytes.fill(END_OF_OPTIONS, target + length, target + padded);
  return padded;
}

/**
 * Where the last header that routers look at names what follows it (RFC 8200 section 4.5): the Routing header, else the
 * Hop-by-Hop Options, else the IPv6 header.
 */
function unfragmentable(ip: Ipv6): number {
  const routing = ip.extension(Protocol.Routing);
  if (routing >= 0) return routing;
  const hopByHop = ip.extension(Protocol.HopByHop);
  return hopByHop >= 0 ? hopByHop : ip.start + IPV6_NEXT_HEADER;
}

/** Where that header ends. */
function endOf(bytes: Uint8Array, start: number, field: number): number {
  return field < start + IPV6_HEADER ? start + IPV6_HEADER : field + (bytes[field + 1]! + 1 << 3);
}
