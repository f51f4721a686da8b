/** Virtio header before each packet of a TUN device with IFF_VNET_HDR, which requests segmentation and checksums. */

import { checksum } from "../../../lib/core/checksum.ts";
import type { Packet } from "../../../lib/core/mod.ts";
import * as field from "../../../lib/wire/header_fields.ts";
import { Ip, Protocol } from "../../../lib/wire/ip.ts";

// Specification: linux/virtio_net.h; virtio 1.2 section 5.1.6. The byte order is little-endian (TUNSETVNETLE).
// struct virtio_net_hdr { __u8 flags; __u8 gso_type; __u16 hdr_len; __u16 gso_size; __u16 csum_start; __u16 csum_offset; };
export const VirtioNetHeader = {
  Flags: 0,
  GsoType: 1,
  HeaderLength: 2,
  GsoSize: 4,
  ChecksumStart: 6,
  ChecksumOffset: 8,
  Size: 10,
} as const;
const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** The data offset is in the upper half of the first byte of `TCP_FLAGS`. */
const { TCP_CHECKSUM, TCP_FLAGS, UDP_CHECKSUM, UDP_HEADER } = field;

/** Length of the header (bytes). */
export const VNET_HEADER = VirtioNetHeader.Size;

/** Sets a packet's segment size and partial checksum from the header at `at` in the pool's memory. */
export function readVnetHeader(packet: Packet, at: number): void {
  const { view } = packet;
  // Flags and GSO type are 0: an ordinary packet with a complete checksum.
  if (view.getUint16(at) === 0) return;
  if ((view.getUint8(at + VirtioNetHeader.Flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    packet.checksumStart = view.getUint16(at + VirtioNetHeader.ChecksumStart, true);
    packet.checksumOffset = view.getUint16(at + VirtioNetHeader.ChecksumOffset, true);
  }
  if (view.getUint8(at + VirtioNetHeader.GsoType) !== 0) {
    packet.segmentSize = view.getUint16(at + VirtioNetHeader.GsoSize, true);
  }
}

/** Writes a packet's header at `at`. The kernel validates it. */
export function writeVnetHeader(packet: Packet, view: DataView, at: number): void {
  view.setUint32(at, 0);
  view.setUint32(at + 4, 0);
  view.setUint16(at + 8, 0);
  if (packet.segmentSize !== 0 && packet.checksumStart === 0) makePartial(packet);
  const { checksumStart, checksumOffset, segmentSize } = packet;
  if (checksumStart !== 0) {
    view.setUint8(at + VirtioNetHeader.Flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    view.setUint16(at + VirtioNetHeader.ChecksumStart, checksumStart, true);
    view.setUint16(at + VirtioNetHeader.ChecksumOffset, checksumOffset, true);
  }
  if (segmentSize === 0 || checksumStart === 0) return;
  const start = packet.offset + checksumStart;
  const isTcp = checksumOffset === TCP_CHECKSUM;
  const headers = checksumStart + (isTcp ? packet.bytes[start + TCP_FLAGS]! >>> 4 << 2 : UDP_HEADER);
  const version = packet.bytes[packet.offset]! >>> 4;
  const type = !isTcp
    ? VIRTIO_NET_HDR_GSO_UDP_L4
    : version === 4
    ? VIRTIO_NET_HDR_GSO_TCPV4
    : VIRTIO_NET_HDR_GSO_TCPV6;
  view.setUint8(at + VirtioNetHeader.GsoType, type);
  view.setUint16(at + VirtioNetHeader.HeaderLength, headers, true);
  view.setUint16(at + VirtioNetHeader.GsoSize, segmentSize, true);
}

/**
 * Replaces a super-packet's complete checksum with a partial one (that of its pseudo-header), which the kernel
 * requires. A wrong checksum is kept. A UDP datagram without a checksum also gets a partial one.
 */
function makePartial(packet: Packet): void {
  const ip = Ip.of(packet);
  if (ip === undefined) return;
  const { bytes, view, offset } = packet;
  const { protocol, payloadOffset: start, payloadLength } = ip;
  if (protocol !== Protocol.Tcp && protocol !== Protocol.Udp) return;
  const field = start + (protocol === Protocol.Tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  if (field + 2 > start + payloadLength) return;
  const pseudoHeader = ip.pseudoHeaderSum(protocol, payloadLength);
  if (pseudoHeader < 0) return;
  const hasNone = protocol === Protocol.Udp && view.getUint16(field) === 0;
  if (!hasNone && checksum(bytes, start, payloadLength, pseudoHeader) !== 0) return;
  view.setUint16(field, pseudoHeader);
  packet.checksumStart = start - offset;
  packet.checksumOffset = field - start;
}
