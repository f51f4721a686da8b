/** IPv6 packets with extension headers, made by hand. */

import { parseIpv6 } from "@warren/tunnel/address";
import { encodePacket } from "./packet_text.ts";
import type { Random } from "../../lib/core/random.ts";

/** An extension header, whose first byte (the next header) is filled in. */
export interface Extension {
  readonly type: number;
  readonly bytes: readonly number[];
}

/** Extension headers of each kind that is walked. */
export const EXTENSIONS = {
  hopByHop: { type: 0, bytes: [0, 0, 5, 2, 0, 0, 0, 0] },
  destination: { type: 60, bytes: [0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
  routing: { type: 43, bytes: [0, 2, 4, 0, 0, 0, 0, 0, ...new Array(16).fill(0x20)] },
  ah: { type: 51, bytes: [0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, ...new Array(12).fill(0x30)] },
  atomic: { type: 44, bytes: [0, 0, 0, 0, 0, 0, 0, 7] },
  first: { type: 44, bytes: [0, 0, 0, 1, 0, 0, 0, 7] },
  last: { type: 44, bytes: [0, 0, 0, 8, 0, 0, 0, 7] },
} as const satisfies Record<string, Extension>;

/** A packet of these headers in front of an upper layer, as bytes. */
export function chained(
  extensions: readonly Extension[],
  upper: readonly [type: number, bytes: Uint8Array],
  [src, dst]: readonly [string, string] = ["fd09::1", "2001:db8::1"],
): Uint8Array {
  const types = [...extensions.map(({ type }) => type), upper[0]];
  const headers = extensions.flatMap(({ bytes }, i) => [types[i + 1]!, ...bytes.slice(1)]);
  const length = headers.length + upper[1].length;
  return Uint8Array.from([
    ...[0x60, 0, 0, 0, length >> 8, length & 255, types[0]!, 64],
    ...[...parseIpv6(src), ...parseIpv6(dst), ...headers, ...upper[1]],
  ]);
}

/** The upper layer of a packet that text describes, in IPv6. */
export function upperOf(text: string): [type: number, bytes: Uint8Array] {
  const bytes = encodePacket(text);
  return [bytes[6]!, bytes.subarray(40)];
}

/** A chain of a few headers in any order, Hop-by-Hop Options first. */
export function randomChain(random: Random): Extension[] {
  const { hopByHop, destination, routing, ah, atomic, first } = EXTENSIONS;
  const kinds = [destination, routing, ah, atomic, first];
  const rest = Array.from({ length: random.below(4) }, () => kinds[random.below(kinds.length)]!);
  return random.below(2) === 0 ? rest : [hopByHop, ...rest];
}
