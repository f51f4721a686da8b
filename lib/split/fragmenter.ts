/** Fragments IP packets: the first fragment reuses the packet's slot, the others get new slots. */

import * as field from "../wire/header_fields.ts";
import { FragmentIds } from "./fragment_ids.ts";
import { copyMetadata } from "../core/copy_packet.ts";
import { checksum, sum } from "../core/checksum.ts";
import type { Packet, StageContext } from "../core/mod.ts";
import { Ip, Protocol } from "../wire/ip.ts";
import type { Ipv4 } from "../wire/ipv4.ts";
import type { Ipv6 } from "../wire/ipv6.ts";
import { Segmenter } from "./segmenter.ts";
import { replaceWithSegment } from "./stage_segmenter.ts";

// Specification: options, RFC 791 section 3.1
const { DONT_FRAGMENT, END_OF_OPTIONS, FRAGMENT_OFFSET, IPV4_CHECKSUM, IPV4_FLAGS } = field;
const { IPV4_HEADER, IPV4_MAX_LENGTH, IPV4_SRC, IPV4_TOTAL_LENGTH, MORE_FRAGMENTS } = field;
const { NO_OPERATION } = field;
const { FRAGMENT_HEADER, FRAGMENT_ID, FRAGMENT_WORD, IPV6_HEADER, IPV6_NEXT_HEADER } = field;
const { IPV6_PAYLOAD_LENGTH, IPV6_SRC, MORE_FRAGMENTS_IPV6 } = field;
const COPIED = 0x80;

// Implementation: drop reasons
const NO_ROOM = "no room for fragments";
const TOO_LONG = "fragment beyond the longest packet";

/** Fragments packets to an MTU. */
export class Fragmenter {
  /** Maximum length of a fragment (bytes). */
  mtu: number;
  readonly #segmenter = new Segmenter();
  /** Fragments of the current packet, in order. */
  readonly #fragments: Packet[] = [];
  #count = 0;
  readonly #ids = new FragmentIds();

  /** @param mtu Maximum length of a fragment (bytes). */
  constructor(mtu: number) {
    this.mtu = mtu;
  }

  /** Fragments a packet, even with Don't Fragment, and emits the fragments onward; drops it if that fails. */
  fragment(packet: Packet, context: StageContext): void {
    this.#count = 0;
    const reason = packet.segmentSize === 0
      ? this.#fragmentPacket(packet, packet, context)
      : this.#fragmentSegments(packet, context);
    for (let i = 0; i < this.#count; i++) {
      const fragment = this.#fragments[i]!;
      if (reason === undefined) context.emit(fragment, context.direction);
      else if (fragment !== packet) context.drop(fragment, reason);
    }
    if (reason !== undefined) context.drop(packet, reason);
  }

  /** Fragments each segment of a super-packet; the last segment takes its slot. */
  #fragmentSegments(packet: Packet, context: StageContext): string | undefined {
    const segmenter = this.#segmenter;
    const unsegmentable = segmenter.start(packet);
    if (unsegmentable !== undefined) return unsegmentable;
    while (segmenter.remaining > 0) {
      const segment = segmenter.next(packet.pool);
      if (segment === undefined) return NO_ROOM;
      if (segmenter.remaining === 0) {
        replaceWithSegment(packet, segment);
        return this.#fragmentPacket(packet, packet, context);
      }
      const reason = this.#fragmentPacket(segment, undefined, context);
      packet.pool.give(segment);
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  /** Fragments an ordinary packet; the first fragment takes the slot of `first`, if given. Returns a drop reason. */
  #fragmentPacket(packet: Packet, first: Packet | undefined, context: StageContext): string | undefined {
    packet.length = Ip.of(packet)!.totalLength; // without padding
    packet.finish();
    // The partial checksum's field may have been in the IP header.
    const ip = Ip.of(packet);
    if (ip === undefined) return "malformed";
    if (ip.totalLength <= this.mtu) {
      const fragment = first ?? context.take(packet.length);
      if (fragment === undefined) return NO_ROOM;
      if (fragment !== packet) {
        copyMetadata(fragment, packet);
        fragment.bytes.copyWithin(fragment.offset, ip.start, ip.start + packet.length);
      }
      this.#fragments[this.#count++] = fragment;
      return undefined;
    }
    return ip.version === 4 ? this.#fragmentIpv4(ip, first, context) : this.#fragmentIpv6(ip, first, context);
  }

  #fragmentIpv4(ip: Ipv4, first: Packet | undefined, context: StageContext): string | undefined {
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
    const fragment = first ?? context.take(headerLength + size);
    if (fragment === undefined) return NO_ROOM;
    this.#fragments[this.#count++] = fragment;
    for (let at = size; at < payloadLength; at += laterSize) {
      const length = Math.min(laterSize, payloadLength - at);
      const later = context.take(laterHeader + length);
      if (later === undefined) return NO_ROOM;
      this.#fragments[this.#count++] = later;
      copyMetadata(later, packet);
      later.bytes.copyWithin(later.offset, start, start + IPV4_HEADER);
      copiedOptions(packet, start, headerLength, later.offset + IPV4_HEADER);
      later.bytes[later.offset] = 4 << 4 | laterHeader >> 2;
      later.bytes.copyWithin(later.offset + laterHeader, payloadOffset + at, payloadOffset + at + length);
      const more = at + length < payloadLength ? MORE_FRAGMENTS : flags & MORE_FRAGMENTS;
      const offset = (flags & FRAGMENT_OFFSET) + (at >> 3);
      finishIpv4(later, laterHeader, more | offset);
    }
    if (fragment !== packet) {
      copyMetadata(fragment, packet);
      fragment.bytes.copyWithin(fragment.offset, start, start + headerLength + size);
    }
    fragment.length = headerLength + size;
    finishIpv4(fragment, headerLength, MORE_FRAGMENTS | flags & FRAGMENT_OFFSET);
    return undefined;
  }

  #fragmentIpv6(ip: Ipv6, first: Packet | undefined, context: StageContext): string | undefined {
    const { packet, start } = ip;
    const { bytes, view } = packet;
    const existing = ip.fragmentHeader;
    const field = existing < 0 ? unfragmentable(ip) : -1;
    // Every fragment has the headers before the Fragment header.
    const headerLength = (existing >= 0 ? existing : endOf(bytes, start, field)) - start;
    const from = start + headerLength + (existing >= 0 ? FRAGMENT_HEADER : 0);
    const size = this.mtu - headerLength - FRAGMENT_HEADER & ~7;
    if (size < 8) return "headers longer than the MTU";
    const next = bytes[existing >= 0 ? existing : field]!;
    const word = existing >= 0 ? view.getUint16(existing + FRAGMENT_WORD) : 0;
    // RFC 8200 section 4.5: unlike in IPv4, identifications are shared by all protocols.
    const id = existing >= 0
      ? view.getUint32(existing + FRAGMENT_ID)
      : this.#ids.next(this.#ids.startOf(view, start + IPV6_SRC, 8, 0));
    const length = start + ip.totalLength - from;
    if (ip.fragmentOffset + length > IPV4_MAX_LENGTH) return TOO_LONG;
    const whole = headerLength + FRAGMENT_HEADER;
    if (first !== undefined && existing < 0 && packet.headroom < FRAGMENT_HEADER) return "no headroom";
    const fragment = first ?? context.take(whole + size);
    if (fragment === undefined) return NO_ROOM;
    this.#fragments[this.#count++] = fragment;
    if (existing < 0) bytes[field] = Protocol.Fragment;
    for (let at = size; at < length; at += size) {
      const part = Math.min(size, length - at);
      const later = context.take(whole + part);
      if (later === undefined) return NO_ROOM;
      this.#fragments[this.#count++] = later;
      copyMetadata(later, packet);
      later.bytes.copyWithin(later.offset, start, start + headerLength);
      later.bytes.copyWithin(later.offset + whole, from + at, from + at + part);
      finishIpv6(later, headerLength, next, word + at | (at + part < length ? MORE_FRAGMENTS_IPV6 : 0), id);
    }
    if (fragment !== packet) copyMetadata(fragment, packet);
    else if (existing < 0) packet.offset -= FRAGMENT_HEADER;
    fragment.bytes.copyWithin(fragment.offset, start, start + headerLength);
    fragment.bytes.copyWithin(fragment.offset + whole, from, from + size);
    fragment.length = whole + size;
    finishIpv6(fragment, headerLength, next, word | MORE_FRAGMENTS_IPV6, id);
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

/** Copies the options with the copied flag to `target`, unless it is -1; returns their length with padding. */
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
 * Returns the offset of the last Next Header field in the unfragmentable part (RFC 8200 section 4.5): in the Routing
 * header, else in the Hop-by-Hop Options, else in the IPv6 header.
 */
function unfragmentable(ip: Ipv6): number {
  const routing = ip.extension(Protocol.Routing);
  if (routing >= 0) return routing;
  const hopByHop = ip.extension(Protocol.HopByHop);
  return hopByHop >= 0 ? hopByHop : ip.start + IPV6_NEXT_HEADER;
}

/** Returns the end of the header with this Next Header field. */
function endOf(bytes: Uint8Array, start: number, field: number): number {
  return field < start + IPV6_HEADER ? start + IPV6_HEADER : field + (bytes[field + 1]! + 1 << 3);
}
