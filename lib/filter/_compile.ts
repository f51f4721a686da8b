/** Compiles the tree of a filter to functions, which parse and allocate nothing per packet. */

import type { Direction } from "../core/mod.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "../wire/header_fields.ts";
import { Protocol } from "../wire/protocol.ts";
import type { Link, Operator, Relation, Side, Test, Value, Word } from "./_tree.ts";

type Match = (packet: Packet) => boolean;
type Read = (packet: Packet) => number;
type Version = 0 | 4 | 6;

// Specification
const { IPV4_FLAGS, IPV4_PROTOCOL, IPV4_SRC, IPV4_DST, FRAGMENT_OFFSET } = field;
const { IPV6_NEXT_HEADER, IPV6_SRC, IPV6_DST, IPV6_HEADER, DST_PORT } = field;

const NO_DIRECTION = -1;

// State of the current match, which calls nothing that could start another match.
/** Direction of the packet. */
let direction: number = NO_DIRECTION;
/** Set by a read beyond the packet's end or a division by zero: the packet then does not match. */
let failed = false;

/** Compiles a test to a function. */
export function compileTest(test: Test): (packet: Packet, direction?: Direction) => boolean {
  const match = compile(test);
  return (packet, of) => {
    direction = of ?? NO_DIRECTION;
    failed = false;
    return match(packet) && !failed;
  };
}

function compile(test: Test): Match {
  switch (test.kind) {
    case "true":
      return () => true;
    case "chain":
      return compileChain(compile(test.first), test.rest);
    case "not": {
      const match = compile(test.test);
      return (packet) => !match(packet);
    }
    case "version":
      return test.version === 4 ? isIpv4 : isIpv6;
    case "protocol":
      return compileProtocol(test.version, test.protocol);
    case "chained":
      return compileChained(test.version, test.protocol);
    case "net4":
      return compileNet4(test.side, test.address, test.mask);
    case "net6":
      return compileNet6(test.side, test.words);
    case "ports":
      return compilePorts(test.side, test.protocol, test.low, test.high);
    case "first fragment":
      return isFirstFragment;
    case "direction": {
      const { direction: wanted } = test;
      return () => direction === wanted;
    }
    case "relation":
      return compileRelation(test.operator, test.left, test.right);
  }
}

function compileChain(first: Match, rest: readonly Link[]): Match {
  const matches = rest.map(({ test }) => compile(test));
  const second = matches[0]!;
  if (matches.length === 1) {
    return rest[0]!.operator === "and"
      ? (packet) => first(packet) && second(packet)
      : (packet) => first(packet) || second(packet);
  }
  const count = matches.length;
  if (rest.every(({ operator }) => operator === "and")) {
    return (packet) => {
      if (!first(packet)) return false;
      for (let i = 0; i < count; i++) if (!matches[i]!(packet)) return false;
      return true;
    };
  }
  const isAnd = rest.map(({ operator }) => operator === "and");
  return (packet) => {
    let result = first(packet);
    for (let i = 0; i < count; i++) if (result === isAnd[i]) result = matches[i]!(packet);
    return result;
  };
}

// Reads of the packet. Each sets `failed` and returns 0 if the packet is too short.

function byteAt(packet: Packet, at: number): number {
  if (at < packet.length) return packet.bytes[packet.offset + at]!;
  failed = true;
  return 0;
}

function shortAt(packet: Packet, at: number): number {
  if (at + 1 < packet.length) {
    const { bytes } = packet;
    const place = packet.offset + at;
    return bytes[place]! << 8 | bytes[place + 1]!;
  }
  failed = true;
  return 0;
}

function wordAt(packet: Packet, at: number): number {
  if (at + 3 < packet.length) {
    const { bytes } = packet;
    const place = packet.offset + at;
    return bytes[place]! << 24 | bytes[place + 1]! << 16 | bytes[place + 2]! << 8 | bytes[place + 3]!;
  }
  failed = true;
  return 0;
}

function versionOf(packet: Packet): number {
  return byteAt(packet, 0) >> 4;
}

function isIpv4(packet: Packet): boolean {
  return versionOf(packet) === 4;
}

function isIpv6(packet: Packet): boolean {
  return versionOf(packet) === 6;
}

function isFirstFragment(packet: Packet): boolean {
  return (shortAt(packet, IPV4_FLAGS) & FRAGMENT_OFFSET) === 0;
}

function ipv4HeaderLength(packet: Packet): number {
  return (byteAt(packet, 0) & 0xf) << 2;
}

// Protocols

function compileProtocol(version: Version, protocol: number): Match {
  const isIn4 = (packet: Packet) => byteAt(packet, IPV4_PROTOCOL) === protocol;
  const isIn6 = (packet: Packet) => {
    const next = byteAt(packet, IPV6_NEXT_HEADER);
    return next === protocol || (next === Protocol.Fragment && byteAt(packet, IPV6_HEADER) === protocol);
  };
  return compileVersions(version, isIn4, isIn6);
}

/** Compiles a test for a protocol after any number of extension headers. */
function compileChained(version: Version, protocol: number): Match {
  const isIn4 = (packet: Packet) =>
    follow(packet, byteAt(packet, IPV4_PROTOCOL), ipv4HeaderLength(packet), protocol, false);
  const isIn6 = (packet: Packet) =>
    follow(packet, byteAt(packet, IPV6_NEXT_HEADER), IPV6_HEADER, protocol, true);
  return compileVersions(version, isIn4, isIn6);
}

function compileVersions(version: Version, isIn4: Match, isIn6: Match): Match {
  switch (version) {
    case 4:
      return (packet) => isIpv4(packet) && isIn4(packet);
    case 6:
      return (packet) => isIpv6(packet) && isIn6(packet);
    case 0:
      return (packet) => versionOf(packet) === 4 ? isIn4(packet) : isIpv6(packet) && isIn6(packet);
  }
}

function follow(packet: Packet, first: number, from: number, protocol: number, isVersion6: boolean): boolean {
  let next = first;
  let at = from;
  while (next !== protocol && !failed) {
    const isExtension = isVersion6 && (next === Protocol.HopByHop || next === Protocol.DestinationOptions ||
      next === Protocol.Routing || next === Protocol.Fragment);
    if (!isExtension && next !== Protocol.Ah) return false;
    next = byteAt(packet, at);
    at += isExtension ? (byteAt(packet, at + 1) + 1) * 8 : (byteAt(packet, at + 1) + 2) * 4;
  }
  return !failed;
}

// Addresses

function compileNet4(side: Side, address: number, mask: number): Match {
  switch (side) {
    case "src":
      return (packet) => (wordAt(packet, IPV4_SRC) & mask) === address;
    case "dst":
      return (packet) => (wordAt(packet, IPV4_DST) & mask) === address;
    case "or":
      return (packet) =>
        (wordAt(packet, IPV4_SRC) & mask) === address || (wordAt(packet, IPV4_DST) & mask) === address;
    case "and":
      return (packet) =>
        (wordAt(packet, IPV4_SRC) & mask) === address && (wordAt(packet, IPV4_DST) & mask) === address;
  }
}

function compileNet6(side: Side, words: readonly Word[]): Match {
  const count = words.length;
  const places = Int32Array.from(words, ({ at }) => at);
  const addresses = Int32Array.from(words, ({ address }) => address);
  const masks = Int32Array.from(words, ({ mask }) => mask);
  const isAt = (packet: Packet, from: number) => {
    for (let i = 0; i < count; i++) {
      if ((wordAt(packet, from + places[i]!) & masks[i]!) !== addresses[i]!) return false;
    }
    return true;
  };
  switch (side) {
    case "src":
      return (packet) => isAt(packet, IPV6_SRC);
    case "dst":
      return (packet) => isAt(packet, IPV6_DST);
    case "or":
      return (packet) => isAt(packet, IPV6_SRC) || isAt(packet, IPV6_DST);
    case "and":
      return (packet) => isAt(packet, IPV6_SRC) && isAt(packet, IPV6_DST);
  }
}

// Ports

function compilePorts(side: Side, protocol: number, low: number, high: number): Match {
  const span = high - low;
  const isWanted = (found: number) =>
    protocol === 0
      ? found === Protocol.Tcp || found === Protocol.Udp || found === Protocol.Sctp
      : found === protocol;
  return (packet) => {
    const version = versionOf(packet);
    let at = IPV6_HEADER;
    if (version === 4) {
      if (!isWanted(byteAt(packet, IPV4_PROTOCOL)) || !isFirstFragment(packet)) return false;
      at = ipv4HeaderLength(packet);
    } else if (version !== 6 || !isWanted(byteAt(packet, IPV6_NEXT_HEADER))) return false;
    if (side !== "dst") {
      const isSrc = shortAt(packet, at) - low >>> 0 <= span;
      if (side === "src" || isSrc === (side === "or")) return isSrc;
    }
    return shortAt(packet, at + DST_PORT) - low >>> 0 <= span;
  };
}

// Numbers

function compileRelation(operator: Relation, left: Value, right: Value): Match {
  const a = compileValue(left);
  if (right.kind === "number") {
    const b = right.value;
    const bits = b >>> 0;
    switch (operator) {
      case "=":
        return (packet) => a(packet) === b;
      case "!=":
        return (packet) => a(packet) !== b;
      case "<":
        return (packet) => a(packet) >>> 0 < bits;
      case "<=":
        return (packet) => a(packet) >>> 0 <= bits;
      case ">":
        return (packet) => a(packet) >>> 0 > bits;
      case ">=":
        return (packet) => a(packet) >>> 0 >= bits;
    }
  }
  const b = compileValue(right);
  switch (operator) {
    case "=":
      return (packet) => a(packet) === b(packet);
    case "!=":
      return (packet) => a(packet) !== b(packet);
    case "<":
      return (packet) => a(packet) >>> 0 < b(packet) >>> 0;
    case "<=":
      return (packet) => a(packet) >>> 0 <= b(packet) >>> 0;
    case ">":
      return (packet) => a(packet) >>> 0 > b(packet) >>> 0;
    case ">=":
      return (packet) => a(packet) >>> 0 >= b(packet) >>> 0;
  }
}

/** Compiles a value to a function that returns signed 32 bits, which V8 keeps off the heap. */
function compileValue(value: Value): Read {
  switch (value.kind) {
    case "number": {
      const { value: number } = value;
      return () => number;
    }
    case "length":
      return (packet) => packet.length | 0;
    case "negation": {
      const read = compileValue(value.value);
      return (packet) => -read(packet) | 0;
    }
    case "load":
      return compileLoad(value.base, value.size, value.index);
    case "operation":
      return compileOperation(value.operator, compileValue(value.left), compileValue(value.right));
  }
}

function compileLoad(base: "ip" | "transport" | "ipv6 payload", size: 1 | 2 | 4, index: Value): Read {
  const readAt = size === 1 ? byteAt : size === 2 ? shortAt : wordAt;
  const read = compileValue(index);
  switch (base) {
    case "ip":
      if (index.kind === "number") {
        const at = index.value >>> 0;
        return (packet) => readAt(packet, at);
      }
      return (packet) => readAt(packet, read(packet) >>> 0);
    case "transport":
      return (packet) => readAt(packet, ipv4HeaderLength(packet) + read(packet) >>> 0);
    case "ipv6 payload":
      return (packet) => readAt(packet, IPV6_HEADER + (read(packet) >>> 0));
  }
}

function compileOperation(operator: Operator, a: Read, b: Read): Read {
  switch (operator) {
    case "+":
      return (packet) => a(packet) + b(packet) | 0;
    case "-":
      return (packet) => a(packet) - b(packet) | 0;
    case "*":
      return (packet) => Math.imul(a(packet), b(packet));
    case "/":
      return (packet) => {
        const dividend = a(packet) >>> 0;
        return dividend / divisor(b(packet)) | 0;
      };
    case "%":
      return (packet) => {
        const dividend = a(packet) >>> 0;
        return dividend % divisor(b(packet)) | 0;
      };
    case "&":
      return (packet) => a(packet) & b(packet);
    case "|":
      return (packet) => a(packet) | b(packet);
    case "^":
      return (packet) => a(packet) ^ b(packet);
    case "<<":
      return (packet) => {
        const value = a(packet);
        const bits = b(packet) >>> 0;
        return bits < 32 ? value << bits : 0;
      };
    case ">>":
      return (packet) => {
        const value = a(packet);
        const bits = b(packet) >>> 0;
        return bits < 32 ? value >>> bits | 0 : 0;
      };
  }
}

function divisor(value: number): number {
  if (value === 0) failed = true;
  return value === 0 ? 1 : value >>> 0;
}
