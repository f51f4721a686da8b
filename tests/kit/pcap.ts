/** Captures of IP packets, for tcpdump and tshark to read. */

// Specification: the pcap file format
const PCAP_MAGIC = 0xa1b2c3d4;
const PCAP_HEADER = 24;
const RECORD_HEADER = 16;
const LINK_TYPE_RAW = 101;

/** A capture in which each packet's time is its number. */
export function pcapOf(packets: readonly Uint8Array[]): Uint8Array {
  const size = packets.reduce((sum, { length }) => sum + RECORD_HEADER + length, PCAP_HEADER);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, PCAP_MAGIC);
  view.setUint16(4, 2);
  view.setUint16(6, 4);
  view.setUint32(16, 65_535);
  view.setUint32(20, LINK_TYPE_RAW);
  let at = PCAP_HEADER;
  packets.forEach((packet, number) => {
    view.setUint32(at, number);
    view.setUint32(at + 8, packet.length);
    view.setUint32(at + 12, packet.length);
    bytes.set(packet, at + RECORD_HEADER);
    at += RECORD_HEADER + packet.length;
  });
  return bytes;
}
