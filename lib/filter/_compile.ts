/** The tree of a filter as functions: nothing is parsed, and nothing made, when a packet is asked about. */

import type { Direction } from "../core/mod.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "../wire/header_fields.ts";
import { Protocol } from "../wire/protocol.ts";
import type { Link, Operator, Relation, Side, Test, Value, Word } from "./_tree.ts";

type Ask = (packet: Packet) => boolean;
type Read = (packet: Packet) => number;

// Specification
const { IPV4_FLAGS, IPV4_PROTOCOL, IPV4_SRC, IPV4_DST, FRAGMENT_OFFSET } = field;
const { IPV6_NEXT_HEADER, IPV6_SRC, IPV6_DST, IPV6_HEADER, DST_PORT } = field;

const NO_DIRECTION = -1;

// Of the packet that is asked about. One at a time: a filter calls nothing that could ask about another.
/** Which way it goes. */
let direction: number = NO_DIRECTION;
/** Whether a byte was read that the packet has not, or a number divided by zero: no packet matches then. */
let failed = false;

/** Makes the function that asks one question. */
export function compileTest(test: Test): (packet: Packet, direction?: Direction) => boolean {
  const ask = compile(test);
  return (packet, of) => {
    direction = of ?? NO_DIRECTION;
    failed = false;
    return ask(packet) && !failed;
  };
}

function compile(test: Test): Ask {
  switch (test.kind) {
    case "true":
      return () => true;
    case "chain":
      return compileChain(compile(test.first), test.rest);
    case "not": {
      const ask = compile(test.test);
      return (packet) => !ask(packet);
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
      const { direction: asked } = test;
      return () => direction === asked;
    }
    case "relation":
      return compileRelation(test.operator, test.left, test.right);
  }
}

function compileChain(first: Ask, rest: readonly Link[]): Ask {
  const asks = rest.map(({ test }) => compile(test));
  const second = asks[0]!;
  if (asks.length === 1) {
    return rest[0]!.operator === "and"
      ? (packet) => first(packet) && second(packet)
      : (packet) => first(packet) || second(packet);
  }
  const count = asks.length;
  if (rest.every(({ operator }) => operator === "and")) {
    return (packet) => {
      if (!first(packet)) return false;
      for (let i = 0; i < count; i++) if (!asks[i]!(packet)) return false;
      return true;
    };
  }
  const isAnd = rest.map(({ operator }) => operator === "and");
  return (packet) => {
    let answer = first(packet);
    for (let i = 0; i < count; i++) if (answer === isAnd[i]) answer = asks[i]!(packet);
    return answer;
  };
}

// What the packet has. Each fails the filter, and answers with something, when the packet is too short.

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

function compileProtocol(asked: 0 | 4 | 6, protocol: number): Ask {
  const isIn4 = (packet: Packet) => byteAt(packet, IPV4_PROTOCOL) === protocol;
  const isIn6 = (packet: Packet) => {
    const next = byteAt(packet, IPV6_NEXT_HEADER);
    return next === protocol || (next === Protocol.Fragment && byteAt(packet, IPV6_HEADER) === protocol);
  };
  switch (asked) {
    case 4:
      return (packet) => isIpv4(packet) && isIn4(packet);
    case 6:
      return (packet) => isIpv6(packet) && isIn6(packet);
    case 0:
      return (packet) => versionOf(packet) === 4 ? isIn4(packet) : isIpv6(packet) && isIn6(packet);
  }
}

/** The protocol, behind any number of extension headers. */
function compileChained(asked: 0 | 4 | 6, protocol: number): Ask {
  const isIn4 = (packet: Packet) =>
    follow(packet, byteAt(packet, IPV4_PROTOCOL), ipv4HeaderLength(packet), protocol, false);
  const isIn6 = (packet: Packet) =>
    follow(packet, byteAt(packet, IPV6_NEXT_HEADER), IPV6_HEADER, protocol, true);
  switch (asked) {
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

function compileNet4(side: Side, address: number, mask: number): Ask {
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

function compileNet6(side: Side, words: readonly Word[]): Ask {
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

function compilePorts(side: Side, protocol: number, low: number, high: number): Ask {
  const span = high - low;
  const isAsked = (found: number) =>
    protocol === 0
      ? found === Protocol.Tcp || found === Protocol.Udp || found === Protocol.Sctp
      : found === protocol;
  return (packet) => {
    const version = versionOf(packet);
    let at = IPV6_HEADER;
    if (version === 4) {
      if (!isAsked(byteAt(packet, IPV4_PROTOCOL)) || !isFirstFragment(packet)) return false;
      at = ipv4HeaderLength(packet);
    } else if (version !== 6 || !isAsked(byteAt(packet, IPV6_NEXT_HEADER))) return false;
    if (side !== "dst") {
      const isSrc = shortAt(packet, at) - low >>> 0 <= span;
      if (side === "src" || isSrc === (side === "or")) return isSrc;
    }
    return shortAt(packet, at + DST_PORT) - low >>> 0 <= span;
  };
}

// Numbers

function compileRelation(operator: Relation, left: Value, right: Value): Ask {
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

/** A function of a number of 32 bits, which is signed so that it is never a heap object. */
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
