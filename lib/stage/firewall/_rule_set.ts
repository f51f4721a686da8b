/**
 * Rules made ready for packets: lists by what a packet is, so that a packet walks only the rules that may match it.
 *
 *     state, direction, version, protocol ──► the rules for these, in order ──► ports, flags, prefixes, rate, match
 */

import * as field from "../../wire/header_fields.ts";
import { parsePrefix, type Prefix } from "../../wire/address.ts";
import { Direction, type Packet } from "../../core/mod.ts";
import { type Ip, Protocol } from "../../wire/ip.ts";
import { RateGate } from "./_rate_gate.ts";
import type { Finding } from "./_tracker.ts";
import { asList, type FirewallRule, formatRule, type PortRange, unknownField } from "./rule.ts";

// Specification
const { IPV4_DST, IPV4_SRC, IPV6_DST, IPV6_SRC, DST_PORT, TCP_FLAGS_BYTE } = field;
const FLAG_LETTERS = "FSRPAUEW";
const WITH_PORTS: readonly number[] = [
  ...[Protocol.Tcp, Protocol.Udp, Protocol.UdpLite, Protocol.Dccp, Protocol.Sctp],
];
const ICMP: readonly number[] = [Protocol.Icmp, Protocol.Icmpv6];

// Implementation
const VERDICTS = ["allow", "drop", "reject"];
const STATES = ["new", "established", "related", "invalid"];
const DIRECTIONS = ["outbound", "inbound"];
const PROTOCOLS: Record<string, number> = Object.fromEntries(
  Object.entries(Protocol).map(([name, number]) => [name.toLowerCase(), number]),
);
/** Protocols that have lists of their own; all others share one. */
const CLASSES: readonly number[] = [Protocol.Tcp, Protocol.Udp, Protocol.Icmp, Protocol.Icmpv6];
const CLASS_OF = Uint8Array.from({ length: 256 }, (_, protocol) => {
  const found = CLASSES.indexOf(protocol);
  return found < 0 ? CLASSES.length : found;
});
const EVERYTHING = 255;

/** A rule made ready. */
export class CompiledRule {
  /** Its place in the list, from 0. */
  readonly index: number;
  /** What it was made of. */
  readonly rule: FirewallRule;
  /** Its text. */
  readonly text: string;
  /** The reason of a packet that it drops. */
  readonly reason: string;
  /** How often it matches; `undefined`: always. */
  readonly rate: RateGate | undefined;
  /** Bits by {@linkcode Finding}. */
  readonly states: number;
  /** Bits by `Direction`. */
  readonly directions: number;
  /** By protocol; `undefined`: all. */
  readonly protocols: Uint8Array | undefined;
  readonly #src: readonly Prefix[] | undefined;
  readonly #dst: readonly Prefix[] | undefined;
  /** Pairs of the first and last port. */
  readonly #srcPorts: Uint16Array | undefined;
  readonly #dstPorts: Uint16Array | undefined;
  readonly #icmpTypes: Uint8Array | undefined;
  readonly #flags: number = 0;
  readonly #flagMask: number = 0;
  readonly #match: FirewallRule["match"];

  constructor(rule: FirewallRule, index: number) {
    if (typeof rule !== "object" || rule === null) {
      throw new TypeError(`Cannot use rule ${index + 1}: ${shown(rule)} is no rule`);
    }
    this.index = index;
    this.rule = rule;
    const unknown = unknownField(rule);
    if (unknown !== undefined) refuse(index, unknown, "there is no such field");
    const { verdict, name, direction, protocol, icmpType, tcpFlags, state = "new", match } = rule;
    if (!VERDICTS.includes(verdict)) refuse(index, "verdict", oneOf(verdict, VERDICTS));
    if (name !== undefined && (typeof name !== "string" || name === "")) {
      refuse(index, "name", `${shown(name)} is no name`);
    }
    if (direction !== undefined && !DIRECTIONS.includes(direction)) {
      refuse(index, "direction", oneOf(direction, DIRECTIONS));
    }
    if (match !== undefined && typeof match !== "function") {
      refuse(index, "match", `${shown(match)} is no function`);
    }
    this.directions = direction === undefined ? 3 : 1 << DIRECTIONS.indexOf(direction);
    this.states = asList(filled(index, "state", state)).reduce((bits, one) => {
      if (!STATES.includes(one)) refuse(index, "state", oneOf(one, STATES));
      return bits | 1 << STATES.indexOf(one);
    }, 0);
    this.#src = readPrefixes(index, "src", rule.src);
    this.#dst = readPrefixes(index, "dst", rule.dst);
    this.#srcPorts = readPorts(index, "srcPort", rule.srcPort);
    this.#dstPorts = readPorts(index, "dstPort", rule.dstPort);
    this.#icmpTypes = readIcmpTypes(index, icmpType);
    if (tcpFlags !== undefined) [this.#flags, this.#flagMask] = readFlags(index, tcpFlags);
    const numbers = protocol === undefined
      ? undefined
      : asList(filled(index, "protocol", protocol)).map((one) => readProtocol(index, one));
    const hasPorts = this.#srcPorts !== undefined || this.#dstPorts !== undefined;
    const [field, wanted] = tcpFlags !== undefined
      ? ["tcpFlags", [Protocol.Tcp]]
      : hasPorts
      ? [this.#srcPorts === undefined ? "dstPort" : "srcPort", WITH_PORTS]
      : icmpType === undefined
      ? ["protocol", undefined]
      : ["icmpType", ICMP];
    const odd = wanted && numbers?.find((number) => !wanted.includes(number));
    if (odd !== undefined) refuse(index, field, `protocol ${odd} has none`);
    if (icmpType !== undefined && (numbers === undefined || hasPorts || tcpFlags !== undefined)) {
      refuse(index, "icmpType", `protocol must be "icmp" or "icmpv6", and there are no ports or flags`);
    }
    this.protocols = numbersOf(numbers ?? wanted);
    this.#match = match;
    try {
      this.rate = rule.rate === undefined ? undefined : new RateGate(rule.rate);
    } catch (cause) {
      refuse(index, "rate", (cause as Error).message, cause);
    }
    this.text = formatRule(rule);
    this.reason = `rule ${name ?? index + 1}`;
  }

  /** Whether packets of this version may match: there are prefixes of it, or none at all. */
  knows(version: 4 | 6): boolean {
    const isThere = (prefixes: readonly Prefix[] | undefined) =>
      prefixes === undefined || prefixes.some(({ address }) => address.family === version);
    return isThere(this.#src) && isThere(this.#dst);
  }

  /** Whether a packet matches, of which state, direction and protocol are right. Changes nothing. */
  matches(packet: Packet, ip: Ip, direction: Direction, now: number): boolean {
    const { bytes, view } = packet;
    const { start, payloadOffset } = ip;
    if (this.#dstPorts !== undefined && !isWithin(this.#dstPorts, view.getUint16(payloadOffset + DST_PORT))) {
      return false;
    }
    if (this.#srcPorts !== undefined && !isWithin(this.#srcPorts, view.getUint16(payloadOffset))) {
      return false;
    }
    if (this.#icmpTypes !== undefined && this.#icmpTypes[bytes[payloadOffset]!] === 0) return false;
    if (this.#flagMask !== 0 && (bytes[payloadOffset + TCP_FLAGS_BYTE]! & this.#flagMask) !== this.#flags) {
      return false;
    }
    if (ip.version === 4) {
      if (this.#src !== undefined && !contain4(this.#src, view.getUint32(start + IPV4_SRC))) return false;
      if (this.#dst !== undefined && !contain4(this.#dst, view.getUint32(start + IPV4_DST))) return false;
    } else {
      if (this.#src !== undefined && !contain6(this.#src, bytes, start + IPV6_SRC)) return false;
      if (this.#dst !== undefined && !contain6(this.#dst, bytes, start + IPV6_DST)) return false;
    }
    if (this.rate !== undefined && !this.rate.has(ip, now)) return false;
    return this.#match === undefined || this.#match(packet, direction);
  }
}

/** All rules, ready. */
export class RuleSet {
  /** In their order. */
  readonly rules: readonly CompiledRule[];
  /** Bits by {@linkcode Finding}: whether any rule asks for that state. */
  readonly states: number;
  readonly #lists: CompiledRule[][] = [];

  constructor(rules: readonly FirewallRule[]) {
    if (!Array.isArray(rules)) throw new TypeError(`Cannot use rules: ${shown(rules)} is no list of them`);
    this.rules = rules.map((rule, index) => new CompiledRule(rule, index));
    this.states = this.rules.reduce((bits, rule) => bits | rule.states, 0);
    for (let finding = 0; finding < STATES.length; finding++) {
      for (const direction of [Direction.Outbound, Direction.Inbound]) {
        for (const version of [4, 6] as const) {
          for (let place = 0; place <= CLASSES.length; place++) {
            this.#lists.push(
              this.rules.filter((rule) =>
                (rule.states >> finding & 1) === 1 && (rule.directions >> direction & 1) === 1 &&
                rule.knows(version) && mayCarry(rule, place)
              ),
            );
          }
        }
      }
    }
  }

  /** The first rule that matches a packet. Changes nothing. */
  find(
    packet: Packet,
    ip: Ip,
    finding: Finding,
    direction: Direction,
    now: number,
  ): CompiledRule | undefined {
    const { protocol } = ip;
    const version = ip.version === 4 ? 0 : 1;
    const place = ((finding * 2 + direction) * 2 + version) * (CLASSES.length + 1) + CLASS_OF[protocol]!;
    const list = this.#lists[place]!;
    for (let i = 0; i < list.length; i++) {
      const rule = list[i]!;
      if (rule.protocols !== undefined && rule.protocols[protocol] === 0) continue;
      if (rule.matches(packet, ip, direction, now)) return rule;
    }
    return undefined;
  }
}

function mayCarry({ protocols }: CompiledRule, place: number): boolean {
  return protocols === undefined ||
    protocols.some((is, protocol) => is === 1 && CLASS_OF[protocol] === place);
}

function isWithin(ports: Uint16Array, port: number): boolean {
  for (let i = 0; i < ports.length; i += 2) if (port >= ports[i]! && port <= ports[i + 1]!) return true;
  return false;
}

function contain4(prefixes: readonly Prefix[], address: number): boolean {
  for (let i = 0; i < prefixes.length; i++) if (prefixes[i]!.containsIpv4(address)) return true;
  return false;
}

function contain6(prefixes: readonly Prefix[], bytes: Uint8Array, start: number): boolean {
  for (let i = 0; i < prefixes.length; i++) if (prefixes[i]!.containsIpv6(bytes, start)) return true;
  return false;
}

function numbersOf(numbers: readonly number[] | undefined): Uint8Array | undefined {
  if (numbers === undefined) return undefined;
  const set = new Uint8Array(EVERYTHING + 1);
  for (const number of numbers) set[number] = 1;
  return set;
}

/** A rule that would match nothing is a mistake. */
function filled<Value>(index: number, field: string, values: Value): Value {
  if (Array.isArray(values) && values.length === 0) refuse(index, field, "the list is empty");
  return values;
}

function readPrefixes(
  index: number,
  field: "src" | "dst",
  values: FirewallRule["src"],
): Prefix[] | undefined {
  if (values === undefined) return undefined;
  return asList(filled(index, field, values)).map((text) => {
    if (typeof text !== "string") refuse(index, field, `${shown(text)} is no text`);
    try {
      return parsePrefix(text);
    } catch (cause) {
      refuse(index, field, (cause as Error).message, cause);
    }
  });
}

function readPorts(
  index: number,
  field: string,
  values: PortRange | readonly PortRange[] | undefined,
): Uint16Array | undefined {
  if (values === undefined) return undefined;
  return Uint16Array.from(
    asList<PortRange>(filled(index, field, values)).flatMap((value) => {
      const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(value));
      const [from, to] = match === null ? [-1, -1] : [Number(match[1]), Number(match[2] ?? match[1])];
      if (from < 0 || to > 65_535 || from > to) {
        refuse(index, field, `${shown(value)} is no port from 0 to 65535, and no range of them`);
      }
      return [from, to];
    }),
  );
}

function readIcmpTypes(index: number, values: FirewallRule["icmpType"]): Uint8Array | undefined {
  if (values === undefined) return undefined;
  return numbersOf(
    asList(filled(index, "icmpType", values)).map((type) => {
      if (!isByte(type)) refuse(index, "icmpType", `${shown(type)} is no type from 0 to 255`);
      return type;
    }),
  );
}

function readProtocol(index: number, value: string | number): number {
  const number = typeof value === "string" ? PROTOCOLS[value] : value;
  if (number === undefined || !isByte(number)) {
    const names = Object.keys(PROTOCOLS).join(", ");
    refuse(index, "protocol", `${shown(value)} is no number from 0 to 255, and none of ${names}`);
  }
  return number;
}

function readFlags(index: number, text: string): [flags: number, mask: number] {
  const match = typeof text === "string" ? /^([FSRPAUEW]*)\/([FSRPAUEW]+)$/.exec(text) : null;
  if (match === null) {
    refuse(index, "tcpFlags", `${shown(text)} is not as "S/SA" is, of the letters ${FLAG_LETTERS}`);
  }
  const bits = (letters: string) =>
    Array.from(letters).reduce((sum, letter) => sum | 1 << FLAG_LETTERS.indexOf(letter), 0);
  const [flags, mask] = [bits(match[1]!), bits(match[2]!)];
  if ((flags & ~mask) !== 0) {
    refuse(index, "tcpFlags", `${shown(text)} asks for flags that it does not look at`);
  }
  return [flags, mask];
}

function isByte(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 255;
}

function oneOf(value: unknown, values: readonly string[]): string {
  return `${shown(value)} is none of ${values.join(", ")}`;
}

function shown(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}

function refuse(index: number, field: string, what: string, cause?: unknown): never {
  const message = `Cannot use rule ${index + 1}: ${field}: ${what}`;
  if (cause instanceof SyntaxError) throw new SyntaxError(message, { cause });
  if (cause instanceof RangeError) throw new RangeError(message, { cause });
  throw new TypeError(message);
}
