/** A filter's program: instructions of eight numbers each, with a target for yes and one for no. */

import type { Packet } from "../core/packet.ts";
import {
  type Arithmetic,
  type Base,
  Family,
  type Operator,
  type Relation,
  Side,
  type Test,
} from "./_tree.ts";

// Specification: RFC 791 section 3.1, RFC 8200 section 3
const PROTOCOL = 9;
const FRAGMENT = 6;
const FRAGMENT_OFFSET = 0x1fff;
const SRC = 12;
const DST = 16;
const NEXT_HEADER = 6;
const FRAGMENT_HEADER = 44;
const IPV6_SRC = 8;
const IPV6_DST = 24;
const IPV6_HEADER = 40;
const ICMPV6 = 58;
const TCP = 6;
const UDP = 17;
const SCTP = 132;

// Implementation
const STRIDE = 8;
const YES = -1;
const NO = -2;
/** How deep sums may nest to their right. */
const REGISTERS = 64;
const registers = new Uint32Array(REGISTERS);

const Op = {
  Version: 0,
  Protocol: 1,
  Ports: 2,
  Ipv4: 3,
  Ipv6: 4,
  Multicast: 5,
  Direction: 6,
  Transport: 7,
  Icmpv6: 8,
  Constant: 9,
  Length: 10,
  Load: 11,
  LoadTransport: 12,
  Equal: 13,
  Greater: 14,
  GreaterOrEqual: 15,
  /** A masked field of the first bytes against a constant: the usual form of a relation. */
  Field: 16,
  All: 17,
  Arithmetic: 32,
} as const;

const OPERATORS: readonly Operator[] = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"];
const RELATIONS: readonly Relation[] = ["=", ">", ">="];

/** What {@linkcode run} takes. */
export interface Program {
  /** The instructions. */
  readonly code: Int32Array;
  /** IPv6 addresses and masks: four words each. */
  readonly words: Int32Array;
  /** The instruction that is first, or what is said at once. */
  readonly entry: number;
}

/** Makes a program of a tree, from its end to its start: each instruction's targets are there already. */
export function assemble(test: Test): Program {
  const code: number[] = [];
  const words: number[] = [];

  function push(yes: number, no: number, op: number, ...operands: number[]): number {
    const at = code.length;
    code.push(op, yes, no, ...operands);
    while (code.length < at + STRIDE) code.push(0);
    return at;
  }

  function emit(test: Test, yes: number, no: number): number {
    switch (test.kind) {
      case "and":
        return emit(test.left, emit(test.right, yes, no), no);
      case "or":
        return emit(test.left, yes, emit(test.right, yes, no));
      case "not":
        return emit(test.test, no, yes);
      case "all":
        return push(yes, no, Op.All);
      case "version":
        return push(yes, no, Op.Version, test.version);
      case "protocol":
        return push(yes, no, Op.Protocol, test.family, test.protocol);
      case "ports":
        return push(yes, no, Op.Ports, test.protocol, test.side, test.low, test.high);
      case "ipv4":
        return push(yes, no, Op.Ipv4, test.side, test.mask, test.address);
      case "ipv6":
        words.push(...test.words, ...test.masks);
        return push(yes, no, Op.Ipv6, test.side, words.length - 8);
      case "multicast":
        return push(yes, no, Op.Multicast, test.version);
      case "direction":
        return push(yes, no, Op.Direction, test.direction);
      case "first":
        return first(test.base, yes, no);
      case "relation":
        return relation(test.relation, test.left, test.right, yes, no);
    }
  }

  /** Whether a header is there to be loaded from. */
  function first(base: Base, yes: number, no: number): number {
    if (base.kind === "transport") return push(yes, no, Op.Transport, base.protocol);
    if (base.kind === "icmp6") return push(yes, no, Op.Icmpv6);
    return push(yes, no, Op.Version, base.kind === "ip" ? 4 : 6);
  }

  function relation(
    relation: Relation,
    left: Arithmetic,
    right: Arithmetic,
    yes: number,
    no: number,
  ): number {
    let mask = -1;
    let field = left;
    if (left.kind === "binary" && left.operator === "&" && left.right.kind === "constant") {
      mask = left.right.value;
      field = left.left;
    }
    const number = RELATIONS.indexOf(relation);
    if (field.kind === "load" && field.index.kind === "constant" && right.kind === "constant") {
      const { base, size } = field;
      const where = field.index.value + (base.kind === "icmp6" ? IPV6_HEADER : 0);
      const shape = size | number << 4 | (base.kind === "transport" ? 8 : 0);
      if (where < 2 ** 31) return push(yes, no, Op.Field, shape, where, mask, right.value);
    }
    const compare = push(yes, no, Op.Equal + number, 0, 1);
    return calculate(left, 0, calculate(right, 1, compare));
  }

  /** Puts a number into a register, and goes on. */
  function calculate(arithmetic: Arithmetic, register: number, next: number): number {
    switch (arithmetic.kind) {
      case "constant":
        return push(next, next, Op.Constant, register, arithmetic.value);
      case "length":
        return push(next, next, Op.Length, register);
      case "load": {
        const { base, size, index } = arithmetic;
        const op = base.kind === "transport" ? Op.LoadTransport : Op.Load;
        const load = push(next, next, op, register, size, base.kind === "icmp6" ? IPV6_HEADER : 0);
        return calculate(index, register, load);
      }
      case "binary": {
        const op = Op.Arithmetic + OPERATORS.indexOf(arithmetic.operator);
        const last = push(next, next, op, register, register + 1);
        return calculate(arithmetic.left, register, calculate(arithmetic.right, register + 1, last));
      }
    }
  }

  const entry = emit(test, YES, NO);
  return { code: Int32Array.from(code), words: Int32Array.from(words), entry };
}

/** Whether a packet passes. A load past the packet's end, or a division by 0, ends it with no, whatever else is. */
export function run(program: Program, packet: Packet, direction: number): boolean {
  const { code } = program;
  const { bytes, view, offset, length } = packet;
  if (length < 1) return program.entry === YES;
  const version = bytes[offset]! >> 4;
  const headerLength = (bytes[offset]! & 15) << 2;
  let at = program.entry;
  while (at >= 0) {
    let yes = false;
    const a = code[at + 3]!;
    const b = code[at + 4]!;
    switch (code[at]!) {
      case Op.Version:
        yes = version === a;
        break;
      case Op.Protocol: {
        if (version === 4 && a !== Family.Ipv6) {
          if (length <= PROTOCOL) return false;
          yes = bytes[offset + PROTOCOL] === b;
        } else if (version === 6 && a !== Family.Ipv4) {
          if (length <= NEXT_HEADER) return false;
          const next = bytes[offset + NEXT_HEADER]!;
          if (next === b) yes = true;
          else if (next === FRAGMENT_HEADER) {
            if (length <= IPV6_HEADER) return false;
            yes = bytes[offset + IPV6_HEADER] === b;
          }
        }
        break;
      }
      case Op.Ports: {
        let start = IPV6_HEADER;
        let protocol = 0;
        if (version === 4) {
          if (length <= PROTOCOL) return false;
          protocol = bytes[offset + PROTOCOL]!;
          start = headerLength;
        } else if (version === 6) {
          if (length <= NEXT_HEADER) return false;
          protocol = bytes[offset + NEXT_HEADER]!;
        }
        if (a === 0 ? protocol !== TCP && protocol !== UDP && protocol !== SCTP : protocol !== a) break;
        if (version === 4 && (view.getUint16(offset + FRAGMENT) & FRAGMENT_OFFSET) !== 0) break;
        const low = code[at + 5]!;
        const high = code[at + 6]!;
        if (b !== Side.Dst) {
          if (start + 2 > length) return false;
          const port = view.getUint16(offset + start);
          yes = port >= low && port <= high;
          if (b === Side.Src || yes === (b === Side.Either)) break;
        }
        if (start + 4 > length) return false;
        const port = view.getUint16(offset + start + 2);
        yes = port >= low && port <= high;
        break;
      }
      case Op.Ipv4: {
        if (version !== 4) break;
        const address = code[at + 5]!;
        if (a !== Side.Dst) {
          if (length < SRC + 4) return false;
          yes = (view.getInt32(offset + SRC) & b) === address;
          if (a === Side.Src || yes === (a === Side.Either)) break;
        }
        if (length < DST + 4) return false;
        yes = (view.getInt32(offset + DST) & b) === address;
        break;
      }
      case Op.Ipv6: {
        if (version !== 6) break;
        if (a !== Side.Dst) {
          const answer = hasPrefix(program.words, b, packet, IPV6_SRC);
          if (answer < 0) return false;
          yes = answer === 1;
          if (a === Side.Src || yes === (a === Side.Either)) break;
        }
        const answer = hasPrefix(program.words, b, packet, IPV6_DST);
        if (answer < 0) return false;
        yes = answer === 1;
        break;
      }
      case Op.Multicast: {
        if (version !== a) break;
        const start = a === 4 ? DST : IPV6_DST;
        if (length <= start) return false;
        yes = bytes[offset + start]! >= (a === 4 ? 224 : 255);
        break;
      }
      case Op.Direction:
        yes = direction === a;
        break;
      case Op.Transport:
        if (version !== 4) break;
        if (length <= PROTOCOL) return false;
        yes = bytes[offset + PROTOCOL] === a && (view.getUint16(offset + FRAGMENT) & FRAGMENT_OFFSET) === 0;
        break;
      case Op.Icmpv6:
        if (version !== 6) break;
        if (length <= NEXT_HEADER) return false;
        yes = bytes[offset + NEXT_HEADER] === ICMPV6;
        break;
      case Op.Field: {
        const start = (a & 8) !== 0 ? headerLength + b : b;
        const size = a & 7;
        if (start + size > length) return false;
        const value = (load(packet, start, size) & code[at + 5]!) >>> 0;
        const other = code[at + 6]! >>> 0;
        const relation = a >> 4;
        yes = relation === 0 ? value === other : relation === 1 ? value > other : value >= other;
        break;
      }
      case Op.All:
        yes = true;
        break;
      case Op.Constant:
        registers[a] = b;
        break;
      case Op.Length:
        registers[a] = length;
        break;
      case Op.Load: {
        const start = (registers[a]! + code[at + 5]!) >>> 0;
        if (start + b > length) return false;
        registers[a] = load(packet, start, b);
        break;
      }
      case Op.LoadTransport: {
        const start = (registers[a]! + headerLength) >>> 0;
        if (start + b > length) return false;
        registers[a] = load(packet, start, b);
        break;
      }
      case Op.Equal:
        yes = registers[a] === registers[b];
        break;
      case Op.Greater:
        yes = registers[a]! > registers[b]!;
        break;
      case Op.GreaterOrEqual:
        yes = registers[a]! >= registers[b]!;
        break;
      default: {
        const operator = code[at]! - Op.Arithmetic;
        const right = registers[b]!;
        if (right === 0 && (operator === 3 || operator === 4)) return false;
        registers[a] = combine(operator, registers[a]!, right);
      }
    }
    at = code[yes ? at + 1 : at + 2]!;
  }
  return at === YES;
}

function load(packet: Packet, start: number, size: number): number {
  const at = packet.offset + start;
  if (size === 1) return packet.bytes[at]!;
  return size === 2 ? packet.view.getUint16(at) : packet.view.getUint32(at);
}

/** 1 when the address at `start` has the prefix, 0 when it has not, -1 when the packet ends before that is known. */
function hasPrefix(words: Int32Array, first: number, packet: Packet, start: number): number {
  for (let i = 0; i < 4; i++) {
    const mask = words[first + 4 + i]!;
    const end = start + 4 * i + 4;
    if (end > packet.length) return -1;
    if ((packet.view.getInt32(packet.offset + end - 4) & mask) !== words[first + i]) return 0;
  }
  return 1;
}

/** What an operator makes of two numbers of 32 bits; a right one of 0 is no divisor. */
export function calculate(operator: Operator, left: number, right: number): number {
  return combine(OPERATORS.indexOf(operator), left, right) >>> 0;
}

function combine(operator: number, left: number, right: number): number {
  switch (operator) {
    case 0:
      return left + right;
    case 1:
      return left - right;
    case 2:
      return Math.imul(left, right);
    case 3:
      return Math.floor(left / right);
    case 4:
      return left % right;
    case 5:
      return left & right;
    case 6:
      return left | right;
    case 7:
      return left ^ right;
    case 8:
      return right < 32 ? left << right : 0;
    default:
      return right < 32 ? left >>> right : 0;
  }
}
