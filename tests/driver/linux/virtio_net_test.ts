/** Virtio headers as the kernel receives them. */

import assert from "node:assert/strict";
import { VNET_HEADER, writeVnetHeader } from "../../../driver/linux/queue/virtio_net.ts";
import { checksum } from "../../../lib/core/checksum.ts";
import { pseudoHeaderSumIpv4 } from "../../../lib/wire/transport_checksum.ts";
import { type Packet, PacketPool } from "../../../lib/core/mod.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { Protocol } from "../../../lib/wire/protocol.ts";
import { Tcp } from "../../../lib/wire/tcp.ts";
import { Udp } from "../../../lib/wire/udp.ts";
import { copy } from "../../../lib/split/copy.ts";

// Specification: linux/virtio_net.h
const NEEDS_CSUM = 1;
const GSO_TCPV4 = 1;
const GSO_UDP_L4 = 5;

function superPacket(protocol: number): Packet {
  const packet = new PacketPool({ small: 0, large: 1 }).from(new Uint8Array(5000))!;
  if (protocol === Protocol.Tcp) Tcp.encode(packet, { srcPort: 1, dstPort: 2, seq: 1, flags: Tcp.Ack });
  else Udp.encode(packet, { srcPort: 1, dstPort: 2 });
  Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a090002, protocol });
  packet.segmentSize = 1000;
  return packet;
}

function header(packet: Packet): { flags: number; type: number; start: number; offset: number } {
  const view = new DataView(new ArrayBuffer(VNET_HEADER));
  writeVnetHeader(packet, view, 0);
  return {
    flags: view.getUint8(0),
    type: view.getUint8(1),
    start: view.getUint16(6, true),
    offset: view.getUint16(8, true),
  };
}

Deno.test("writeVnetHeader() makes the complete checksum of a super-packet partial again", () => {
  for (
    const [protocol, type, offset] of [[Protocol.Tcp, GSO_TCPV4, 16], [Protocol.Udp, GSO_UDP_L4, 6]] as const
  ) {
    const packet = superPacket(protocol);
    const finished = copy(packet);
    assert.deepEqual(header(packet), { flags: NEEDS_CSUM, type, start: 20, offset });
    assert.deepEqual(copy(packet), finished);
  }
});

Deno.test("writeVnetHeader() does not correct a wrong checksum", () => {
  const packet = superPacket(Protocol.Udp);
  packet.bytes[packet.offset + 100]! ^= 1;
  const { flags, type } = header(packet);
  assert.deepEqual([flags, type], [0, 0]);
  assert.equal(packet.checksumStart, 0);
});

Deno.test("writeVnetHeader() writes nothing behind a truncated TCP header", () => {
  const [src, dst, protocol, length] = [0x0a090001, 0x0a090002, Protocol.Tcp, 10];
  const pool = new PacketPool({ small: 1, large: 0 });
  pool.bytes.fill(0xa5);
  const packet = pool.from(new Uint8Array(length))!;
  // The checksum would be right if the header were complete.
  packet.view.setUint16(
    packet.offset,
    checksum(packet.bytes, 0, 0, pseudoHeaderSumIpv4(src, dst, protocol, length)),
  );
  Ipv4.encode(packet, { src, dst, protocol });
  packet.segmentSize = 4;
  const { flags, type } = header(packet);
  assert.deepEqual([flags, type], [0, 0]);
  const end = packet.offset + packet.length;
  assert.ok(packet.bytes.subarray(end, packet.slotEnd).every((byte) => byte === 0xa5));
});
