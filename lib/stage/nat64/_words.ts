/** IPv6 addresses as four 32-bit words of a flow's key. */

import type { Packet } from "../../core/mod.ts";

/** Copies the address at offset `at` of a packet's slot to the words from `first` on. */
export function readWords({ view }: Packet, at: number, words: Uint32Array, first: number): void {
  for (let i = 0; i < 4; i++) words[first + i] = view.getUint32(at + 4 * i);
}

/** Copies the words from `first` on to an address. */
export function writeWords(words: Uint32Array, first: number, address: Uint8Array): void {
  for (let i = 0; i < 16; i++) address[i] = words[first + (i >> 2)]! >>> 24 - 8 * (i & 3);
}
