/** Packets of all kinds for filters, from a seed: whole, fragmented, truncated and empty. */

import type { Random } from "../../../lib/core/random.ts";

/** Packets at least this long have every byte that the tests' filters read. */
export const WHOLE = 160;

const IPV4_ADDRESSES = [
  0x0a000001,
  0x0a000002,
  0x0a010203,
  0xc0a80101,
  0xe0000001,
  0xffffffff,
  0,
  0x0b000001,
];
const IPV6_ADDRESSES = [
  "fd000000000000000000000000000001",
  "fd000000000000000000000000000002",
  "fd000000100000000000000000000001",
  "20010db8000000000000000000000001",
  "ff020000000000000000000000000001",
  "00000000000000000000000000000001",
];
const PORTS = [22, 53, 80, 443, 5000, 6001, 65_535, 0];
const PROTOCOLS = [6, 6, 6, 17, 17, 17, 132, 1, 58, 2, 9, 47, 50, 51, 103, 112, 89, 0, 41, 59];
const EXTENSIONS = [0, 43, 60, 44, 51];

function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[random.below(items.length)]!;
}

function transport(random: Random, protocol: number): number[] {
  const bytes = Array.from({ length: WHOLE }, () => random.below(256));
  if (protocol === 6 || protocol === 17 || protocol === 132) {
    const ports = [pick(random, PORTS), pick(random, PORTS)];
    ports.forEach((port, i) => bytes.splice(2 * i, 2, port >> 8, port & 255));
    if (random.below(2) === 0) bytes[13] = pick(random, [0x02, 0x10, 0x12, 0x11, 0x18, 0x04]);
  } else if (protocol === 1) bytes[0] = pick(random, [0, 3, 8, 11]);
  else if (protocol === 58) bytes[0] = pick(random, [1, 2, 128, 129, 135]);
  return bytes;
}

function ipv4(random: Random): number[] {
  const words = random.below(3) === 0 ? 5 + random.below(11) : 5;
  const protocol = pick(random, PROTOCOLS);
  const bytes = Array.from({ length: 4 * words }, () => random.below(256));
  bytes[0] = 0x40 | (random.below(40) === 0 ? random.below(16) : words);
  const fragment = pick(random, [0, 0, 0, 0x4000, 0x2000, 0x2001, 0x00b9]);
  bytes.splice(6, 2, fragment >> 8, fragment & 255);
  bytes[9] = protocol;
  for (const at of [12, 16]) {
    const address = pick(random, IPV4_ADDRESSES);
    bytes.splice(at, 4, address >>> 24, address >>> 16 & 255, address >>> 8 & 255, address & 255);
  }
  return [...bytes, ...transport(random, protocol)];
}

function ipv6(random: Random): number[] {
  const protocol = pick(random, PROTOCOLS);
  const chain: number[] = [];
  let next = protocol;
  for (let count = random.below(3) === 0 ? 1 + random.below(3) : 0; count > 0; count--) {
    const kind = pick(random, EXTENSIONS);
    const words = kind === 51 ? 3 : kind === 44 ? 2 : 2 + 2 * random.below(2);
    const header = Array.from({ length: 4 * words }, () => random.below(256));
    header[0] = next;
    header[1] = kind === 51 ? words - 2 : kind === 44 ? 0 : words / 2 - 1;
    chain.unshift(...header);
    next = kind;
  }
  const bytes = Array.from({ length: 8 }, () => random.below(256));
  bytes[0] = 0x60 | bytes[0]! & 15;
  bytes[6] = next;
  for (let i = 0; i < 2; i++) bytes.push(...Uint8Array.fromHex(pick(random, IPV6_ADDRESSES)));
  return [...bytes, ...chain, ...transport(random, protocol)];
}

/** So many packets. */
export function filterPackets(random: Random, count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    if (i % 23 === 0) return Uint8Array.from({ length: random.below(60) }, () => random.below(256));
    const bytes = Uint8Array.from(random.below(2) === 0 ? ipv4(random) : ipv6(random));
    return random.below(3) === 0 ? bytes.slice(0, random.below(100)) : bytes;
  });
}
