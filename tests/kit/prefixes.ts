/** Prefixes as the Internet's full table has them, from a seed. */

import { Prefix } from "../../lib/wire/address.ts";
import { Random } from "../../lib/core/random.ts";

/**
 * How many prefixes of each length the IPv4 table has, in thousandths (CIDR report, 2025): /24 are three of five,
 * and what is longer is not passed on.
 */
const LENGTHS: Readonly<Record<number, number>> = {
  8: 1,
  12: 1,
  13: 1,
  14: 2,
  15: 3,
  16: 14,
  17: 9,
  18: 15,
  19: 27,
  20: 47,
  21: 53,
  22: 115,
  23: 105,
  24: 607,
};

/** So many different IPv4 prefixes, of unicast addresses, most of which lie beside another one. */
export function* fullTable(count: number, seed: number): Generator<Prefix, void, void> {
  const random = new Random(seed);
  const lengths = Object.entries(LENGTHS).flatMap(([length, share]) => new Array(share).fill(Number(length)));
  const known = new Set<number>();
  let address = 0;
  while (known.size < count) {
    const length: number = lengths[random.below(lengths.length)]!;
    // Half of all are their neighbour's neighbours, as blocks are that somebody announces in pieces.
    address = random.below(2) === 0
      ? address + 2 ** (32 - length)
      : random.below(223 << 8) * 0x10000 + 0x1000000;
    const network = Math.floor(address / 2 ** (32 - length)) * 2 ** (32 - length);
    const number = network * 64 + length;
    if (network >= 0xe0000000 || known.has(number)) continue;
    known.add(number);
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, network);
    yield new Prefix({ family: 4, bytes }, length);
  }
}
