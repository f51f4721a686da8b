/**
 * Any bytes at all, through every view: no `of`, getter, setter or method of one throws, nothing outside of the
 * packet is written, and what lies outside does not change what {@linkcode inspect} says.
 *
 *     valid packets ──► mutate ──► a slot filled with 0xa5 ──► inspect, every view's getters, setters, getters
 */

import { type Packet, PacketPool } from "@warren/tunnel/core";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { inspect } from "@warren/tunnel/inspect";
import { Ip } from "@warren/tunnel/ip";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { equal } from "node:assert/strict";
import { encodeIp, hex, packetOf } from "../../kit/packets.ts";

const PACKETS = 1_000_000;
const SEED = 0x5eed;
const FILL = 0xa5;
const OTHER_FILL = 0x5a;
const GUARD = 32; // bytes beside the packet that are looked at

/** Mulberry32: a whole number below `limit`. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, state | 1);
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61);
    return ((mixed ^ mixed >>> 14) >>> 0) % limit;
  };
}

/** A class of views, and what its instances have. */
interface Surface {
  of(packet: Packet): object | undefined;
  getters: string[];
  setters: string[];
  methods: string[];
}

function surfaceOf(of: Surface["of"], prototype: object): Surface {
  const surface: Surface = { of, getters: [], setters: [], methods: [] };
  for (let level = prototype; level !== Object.prototype; level = Object.getPrototypeOf(level) as object) {
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      if (descriptor.get) surface.getters.push(name);
      if (descriptor.set) surface.setters.push(name);
      // These are for subclasses, which call them with offsets of their own.
      const isOwn = ["constructor", "place", "setWord", "setDoubleWord"].includes(name);
      if (typeof descriptor.value === "function" && !isOwn) surface.methods.push(name);
    }
  }
  return surface;
}

const SURFACES: Surface[] = [
  surfaceOf((packet) => Ipv4.of(packet), Ipv4.prototype),
  surfaceOf((packet) => Ipv6.of(packet), Ipv6.prototype),
  surfaceOf((packet) => Udp.of(packet), Udp.prototype),
  surfaceOf((packet) => Tcp.of(packet), Tcp.prototype),
  surfaceOf((packet) => Icmpv4.of(packet), Icmpv4.prototype),
  surfaceOf((packet) => Icmpv6.of(packet), Icmpv6.prototype),
];

/** Valid packets of every kind. */
function validPackets(): Uint8Array[] {
  const found: Uint8Array[] = [];
  const payload = new Uint8Array(60).map((_, i) => i * 7);
  const add = (
    protocol: number,
    encode: (packet: Packet) => void,
    versions: readonly (4 | 6)[] = [4, 6],
  ): void => {
    for (const version of versions) {
      const extensions = extensionsBefore(protocol);
      for (const { first, header } of version === 4 ? extensions.slice(0, 1) : extensions) {
        const packet = packetOf(payload);
        encode(packet);
        packet.prepend(header.length);
        packet.bytes.set(header, packet.offset);
        found.push(encodeIp(packet, version, first).data.slice());
      }
    }
  };
  add(17, (packet) => Udp.encode(packet, { srcPort: 1234, dstPort: 53 }));
  add(6, (packet) => Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Ack }));
  const options = { mss: 1460, sackPermitted: true, timestamps: { tsval: 1, tsecr: 2 }, windowScale: 7 };
  add(6, (packet) => Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Syn, options }));
  const odd = Uint8Array.of(1, 2, 4, 5, 180, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2);
  add(
    6,
    (packet) => Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Ack, options: odd }),
  );
  for (const type of [0, 3, 4, 5, 8, 9, 11, 12, 13, 14]) {
    add(1, (packet) => Icmpv4.encode(quote(packet, 4), { type, code: 3, rest: 0x00080578 }), [4]);
  }
  for (const type of [1, 2, 3, 4, 128, 129, 133, 134, 135, 136, 137]) {
    add(58, (packet) => Icmpv6.encode(quote(packet, 6), { type, code: 4 % type, rest: 0x06000578 }), [6]);
  }
  add(47, () => {});
  return found;
}

function quote(packet: Packet, version: 4 | 6): Packet {
  Udp.encode(packet, { srcPort: 1, dstPort: 33_434 });
  return encodeIp(packet, version, 17);
}

/** Nothing, and each extension header there is, leading to this protocol. */
function extensionsBefore(protocol: number): { first: number; header: number[] }[] {
  const route = Array.from({ length: 32 }, (_, i) => i);
  return [
    { first: protocol, header: [] },
    { first: 0, header: [protocol, 0, 5, 2, 0, 0, 1, 0] },
    { first: 43, header: [protocol, 4, 4, 1, 1, 0, 0, 0, ...route] },
    { first: 44, header: [protocol, 0, 0, 1, 0, 0, 0, 7] },
    { first: 44, header: [protocol, 0, 0x05, 0xa8, 0, 0, 0, 7] },
    { first: 51, header: [protocol, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2] },
    { first: 60, header: [protocol, 0, 1, 4, 0, 0, 0, 0] },
  ];
}

/** Offsets of lengths, types and offsets, whose change has effects. */
const TELLING = [0, 2, 3, 4, 5, 6, 7, 9, 20, 24, 25, 32, 33, 40, 41, 42, 43, 44, 45, 48, 52, 53, 60, 61];

function mutate(random: (limit: number) => number, valid: readonly Uint8Array[]): Uint8Array {
  if (random(16) === 0) return Uint8Array.from({ length: random(120) }, () => random(256));
  let bytes = valid[random(valid.length)]!.slice();
  for (let count = random(4); count >= 0; count--) {
    const at = bytes.length === 0 ? 0 : random(bytes.length);
    switch (random(8)) {
      case 0: // a bit
        if (at < bytes.length) bytes[at]! ^= 1 << random(8);
        break;
      case 1: // a byte
        bytes[at] = random(256);
        break;
      case 2: // an end
        bytes = bytes.subarray(0, at);
        break;
      case 3: { // a tail beyond the stated lengths
        const longer = new Uint8Array(bytes.length + random(40));
        longer.set(bytes);
        bytes = longer;
        break;
      }
      case 4: // a length, type or offset
      case 5: {
        const telling = TELLING[random(TELLING.length)]!;
        if (telling < bytes.length) {
          bytes[telling] = random(2) === 0 ? random(256) : [0, 1, 15, 255][random(4)]!;
        }
        break;
      }
      case 6: { // an extension header or options, between
        const { first, header } = extensionsBefore([17, 6, 58, 0, 43, 44, 51, 60][random(8)]!)[random(7)]!;
        const where = random(2) === 0 ? Math.min(40, bytes.length) : at;
        bytes = Uint8Array.from([...bytes.subarray(0, where), ...header, ...bytes.subarray(where)]);
        if (bytes[0]! >> 4 === 6 && random(2) === 0) {
          bytes[6] = first;
          if (bytes.length >= 40) bytes[5] = bytes.length - 40;
        }
        break;
      }
      case 7: // another packet's head or tail
        bytes = Uint8Array.from([
          ...bytes.subarray(0, at),
          ...valid[random(valid.length)]!.subarray(at),
        ]);
        break;
    }
  }
  // Otherwise most would fail at the IP header.
  if (random(2) === 0) rightLength(bytes);
  return bytes;
}

function rightLength(bytes: Uint8Array): void {
  const version = bytes.length < 40 ? 0 : bytes[0]! >> 4;
  if (version === 4) bytes[3] = bytes.length - (bytes[2] = bytes.length >> 8) * 256;
  if (version === 6) bytes[5] = bytes.length - 40 - (bytes[4] = bytes.length - 40 >> 8) * 256;
}

function valueFor(random: (limit: number) => number, view: object, name: string): unknown {
  if (view instanceof Ipv6 && (name === "src" || name === "dst")) return new Uint8Array(16).fill(random(256));
  return random(2) === 0 ? random(0x100000000) : [0, 1, 0xffff, -1, 0.5][random(5)];
}

function exercise(random: (limit: number) => number, packet: Packet, seen: Set<string>): void {
  Ip.of(packet);
  for (const { of, getters, setters, methods } of SURFACES) {
    const view = of(packet) as Record<string, unknown> | undefined;
    if (view === undefined) continue;
    seen.add(view.constructor.name);
    for (let i = 0; i < getters.length; i++) void view[getters[i]!];
    for (let count = random(3); count > 0; count--) {
      const name = setters[random(setters.length)];
      if (name !== undefined) view[name] = valueFor(random, view, name);
      const method = view[methods[random(methods.length)]!] as (value: number) => unknown;
      method.call(view, random(70));
      void view[getters[random(getters.length)]!];
    }
  }
}

Deno.test(`No view and no inspect() throws, for ${PACKETS} random and mutated packets`, () => {
  const random = generator(SEED);
  const valid = validPackets();
  const pool = new PacketPool({ small: 1, large: 0 });
  const packet = pool.take(0)!;
  const { bytes } = packet;
  const seen = new Set<string>();
  let malformed = 0;
  bytes.fill(FILL);
  for (let i = 0; i < PACKETS; i++) {
    const data = mutate(random, valid);
    packet.reset(data.length);
    // Near the pool's end, what reads too far meets the end of the memory.
    if (random(2) === 0) packet.offset = packet.slotEnd - data.length;
    if (random(4) === 0 && data.length > 0) {
      packet.checksumStart = random(data.length);
      packet.checksumOffset = random(20);
    }
    const { offset } = packet;
    bytes.set(data, offset);
    try {
      const line = inspect(packet, { verbose: i % 8 === 0 });
      equal(line.includes("\n") || line.includes("undefined") || line.includes("NaN"), false, line);
      if (i % 16 === 0) {
        bytes.fill(OTHER_FILL, 0, offset).fill(OTHER_FILL, offset + data.length);
        equal(inspect(packet, { verbose: i % 8 === 0 }), line);
        bytes.fill(FILL, 0, offset).fill(FILL, offset + data.length);
      }
      exercise(random, packet, seen);
      if (packet.malformed) malformed++;
      if (i % 4 === 0) inspect(packet);
      const end = offset + data.length;
      for (let at = 1; at <= GUARD; at++) {
        if (bytes[offset - at] !== FILL || bytes[end + at - 1] !== FILL) {
          throw new Error("written beside the packet");
        }
      }
    } catch (cause) {
      throw new Error(`Seed ${SEED}, packet ${i}: ${hex(data)}`, { cause });
    }
    bytes.fill(FILL, offset, offset + data.length);
  }
  // A generator of nothing but refused packets would show nothing.
  equal(seen.size, SURFACES.length);
  equal(
    malformed > PACKETS / 10 && malformed < PACKETS * 0.9,
    true,
    `${malformed} of ${PACKETS} are malformed`,
  );
});
