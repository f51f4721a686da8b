/** A slow reassembly that shares no code with lib, for the tests of fragmentation and reassembly. */

/** Header fields of a fragment. */
export interface Fragment {
  /** Version, addresses, identification, and over IPv4 the protocol, which fragments of a datagram share. */
  readonly key: string;
  /** Offset of its payload in the datagram. */
  readonly offset: number;
  readonly more: boolean;
  readonly payload: Uint8Array;
  /** Headers before the payload; over IPv6 without the Fragment header. */
  readonly header: Uint8Array;
}

/** Reads a fragment with valid headers; `undefined` for any other packet. */
export function readFragment(bytes: Uint8Array): Fragment | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes[0]! >> 4 === 4) {
    const word = view.getUint16(6);
    if ((word & 0x3fff) === 0) return undefined;
    const headerLength = (bytes[0]! & 15) * 4;
    const header = bytes.slice(0, headerLength);
    const key = `4 ${bytes.subarray(12, 20).toHex()} ${view.getUint16(4)} ${bytes[9]}`;
    return {
      key,
      offset: (word & 0x1fff) * 8,
      more: (word & 0x2000) !== 0,
      payload: bytes.slice(headerLength, view.getUint16(2)),
      header,
    };
  }
  let field = 6;
  let at = 40;
  while ([0, 43, 60].includes(bytes[field]!)) {
    field = at;
    at += (bytes[at + 1]! + 1) * 8;
  }
  if (bytes[field] !== 44) return undefined;
  const word = view.getUint16(at + 2);
  const header = bytes.slice(0, at);
  header[field] = bytes[at]!;
  return {
    key: `6 ${bytes.subarray(8, 40).toHex()} ${view.getUint32(at + 4)}`,
    offset: word & 0xfff8,
    more: (word & 1) === 1,
    payload: bytes.slice(at + 8, 40 + view.getUint16(4)),
    header,
  };
}

/** Joins all fragments of a packet, with correct lengths and IPv4 header checksum. */
export function join(fragments: readonly Fragment[]): Uint8Array {
  const sorted = fragments.toSorted((a, b) => a.offset - b.offset);
  const { header } = sorted[0]!;
  const payload = sorted.flatMap(({ payload }) => Array.from(payload));
  const bytes = Uint8Array.from([...header, ...payload]);
  const view = new DataView(bytes.buffer);
  if (bytes[0]! >> 4 === 6) {
    view.setUint16(4, bytes.length - 40);
    return bytes;
  }
  view.setUint16(2, bytes.length);
  view.setUint16(6, 0);
  view.setUint16(10, 0);
  let total = 0;
  for (let i = 0; i < header.length; i += 2) total += view.getUint16(i);
  while (total > 0xffff) total = total % 0x10000 + Math.floor(total / 0x10000);
  view.setUint16(10, ~total & 0xffff);
  return bytes;
}
