/** IPv6 addresses as four 32-bit words of a flow's key. */

import type { Packet } from "../../core/mod.ts";

/** Copies the address at offset `at` of a packet's slot to the words from `first` on. */
export function readWords({ view }: Packet, at: number, words: Uint32Array, first: number): void {
  for (let i = 0; i < 4; i++) words[first + i] = view.getUint32(at + 4 * i);
}

/** Copies the words from `first` on to an address. */
export function writeWords(words: Uint32Array, first: number, address: Uint8Array): void {
  for (let i = 0; i < 4; i++) {
    const word = words[first + i]!;
    address[4 * i] = word >>> 24;
    address[4 * i + 1] = word >>> 16;
    address[4 * i + 2] = word >>> 8;
    address[4 * i + 3] = word;
  }
}
