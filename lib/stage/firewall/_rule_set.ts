/**
 * Checked rules in lists by kind of packet, so that a packet is compared only with rules that may match it.
 *
 *     state, direction, version, protocol ──► the rules for these, in order ──► ports, flags, prefixes, rate, match
 */

import * as field from "../../wire/header_fields.ts";
import { parsePrefix, type Prefix } from "../../wire/address.ts";
import { Direction, type Packet } from "../../core/mod.ts";
import { type Ip, Protocol } from "../../wire/ip.ts";
import { readPortRange } from "../../wire/port_range.ts";
import { checkOption, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { RateGate } from "./_rate_gate.ts";
import type { Finding } from "./_tracker.ts";
import { asList, type FirewallRule, formatRule, type PortRange, VERDICTS } from "./rule.ts";

// Specification
const { IPV4_DST, IPV4_SRC, IPV6_DST, IPV6_SRC, DST_PORT, TCP_FLAGS_BYTE } = field;
const FLAG_LETTERS = "FSRPAUEW";
const WITH_PORTS: readonly number[] = [
  ...[Protocol.Tcp, Protocol.Udp, Protocol.UdpLite, Protocol.Dccp, Protocol.Sctp],
];
const ICMP: readonly number[] = [Protocol.Icmp, Protocol.Icmpv6];

// Implementation
const STATES = ["new", "established", "related", "invalid"];
const DIRECTIONS = ["outbound", "inbound"];
const FIELDS: OptionKinds<FirewallRule> = {
  verdict: VERDICTS,
  name: "text",
  direction: DIRECTIONS,
  src: "any",
  dst: "any",
  protocol: "any",
  srcPort: "any",
  dstPort: "any",
  icmpType: "any",
  tcpFlags: "any",
  state: "any",
  rate: "any",
  match: "function",
};
const PROTOCOLS: Record<string, number> = Object.fromEntries(
  Object.entries(Protocol).map(([name, number]) => [name.toLowerCase(), number]),
);
/** Protocols with a separate list; all others share one. */
const CLASSES: readonly number[] = [Protocol.Tcp, Protocol.Udp, Protocol.Icmp, Protocol.Icmpv6];
const CLASS_OF = Uint8Array.from({ length: 256 }, (_, protocol) => {
  const found = CLASSES.indexOf(protocol);
  return found < 0 ? CLASSES.length : found;
});

/** A checked rule, in the form that packets are compared with. */
export class CompiledRule {
  /** Index in the list, from 0. */
  readonly index: number;
  /** The rule as it was given. */
  readonly rule: FirewallRule;
  /** The rule as text. */
  readonly text: string;
  /** Drop reason of packets that the rule drops. */
  readonly reason: string;
  /** Rate limit; `undefined` for none. */
  readonly rate: RateGate | undefined;
  /** States that it matches, as bits by {@linkcode Finding}. */
  readonly states: number;
  /** Directions that it matches, as bits by `Direction`. */
  readonly directions: number;
  /** 1 for each protocol that it matches; `undefined` for all. */
  readonly protocols: Uint8Array | undefined;
  readonly #src: readonly Prefix[] | undefined;
  readonly #dst: readonly Prefix[] | undefined;
  /** Pairs of first and last port. */
  readonly #srcPorts: Uint16Array | undefined;
  readonly #dstPorts: Uint16Array | undefined;
  readonly #icmpTypes: Uint8Array | undefined;
  readonly #flags: number = 0;
  readonly #flagMask: number = 0;
  readonly #match: FirewallRule["match"];

  constructor(rule: FirewallRule, index: number) {
    checkOption(attempt(index), "rule", rule, "object");
    checkOptions(attempt(index), rule, FIELDS, ["verdict"]);
    this.index = index;
    this.rule = rule;
    const { name, direction, protocol, icmpType, tcpFlags, state = "new", match } = rule;
    if (name === "") mustBe(index, "name", "a string that is not empty", name);
    this.directions = direction === undefined ? 3 : 1 << DIRECTIONS.indexOf(direction);
    this.states = asList(notEmpty(index, "state", state)).reduce((bits, one) => {
      checkOption(attempt(index), "state", one, STATES);
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
      : asList(notEmpty(index, "protocol", protocol)).map((one) => readProtocol(index, one));
    const hasPorts = this.#srcPorts !== undefined || this.#dstPorts !== undefined;
    const [field, allowed] = tcpFlags !== undefined
      ? ["tcpFlags", [Protocol.Tcp]]
      : hasPorts
      ? [this.#srcPorts === undefined ? "dstPort" : "srcPort", WITH_PORTS]
      : icmpType === undefined
      ? ["protocol", undefined]
      : ["icmpType", ICMP];
    const wrong = allowed && numbers?.find((number) => !allowed.includes(number));
    if (wrong !== undefined) fail(index, `${field} must not be given for protocol ${wrong}`);
    if (icmpType !== undefined && (numbers === undefined || hasPorts || tcpFlags !== undefined)) {
      fail(index, `icmpType must be given with protocol "icmp" or "icmpv6", without ports and flags`);
    }
    this.protocols = numbersOf(numbers ?? allowed);
    this.#match = match;
    this.rate = rule.rate === undefined ? undefined : new RateGate(rule.rate, attempt(index));
    this.text = formatRule(rule);
    this.reason = `rule ${name ?? index + 1}`;
  }

  /** Reports whether the prefixes can match packets of this IP version. */
  appliesTo(version: 4 | 6): boolean {
    const applies = (prefixes: readonly Prefix[] | undefined) =>
      prefixes === undefined || prefixes.some(({ address }) => address.family === version);
    return applies(this.#src) && applies(this.#dst);
  }

  /** Reports whether a packet matches, given that its state, direction and protocol do. Changes nothing. */
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

/** All rules of a firewall. */
export class RuleSet {
  /** The rules in order. */
  readonly rules: readonly CompiledRule[];
  /** States that any rule matches, as bits by {@linkcode Finding}. */
  readonly states: number;
  readonly #lists: CompiledRule[][] = [];

  constructor(rules: readonly FirewallRule[]) {
    this.rules = rules.map((rule, index) => new CompiledRule(rule, index));
    this.states = this.rules.reduce((bits, rule) => bits | rule.states, 0);
    for (let finding = 0; finding < STATES.length; finding++) {
      for (const direction of [Direction.Outbound, Direction.Inbound]) {
        for (const version of [4, 6] as const) {
          for (let place = 0; place <= CLASSES.length; place++) {
            this.#lists.push(
              this.rules.filter((rule) =>
                (rule.states >> finding & 1) === 1 && (rule.directions >> direction & 1) === 1 &&
                rule.appliesTo(version) && coversClass(rule, place)
              ),
            );
          }
        }
      }
    }
  }

  /** Finds the first rule that matches a packet. Changes nothing. */
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

function coversClass({ protocols }: CompiledRule, place: number): boolean {
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
  const set = new Uint8Array(256);
  for (const number of numbers) set[number] = 1;
  return set;
}

/** Rejects an empty list: a rule that matches nothing is a mistake. */
function notEmpty<Value>(index: number, field: string, values: Value): Value {
  if (Array.isArray(values) && values.length === 0) {
    fail(index, `${field} must be a value or a list of values, got an empty list`);
  }
  return values;
}

function readPrefixes(
  index: number,
  field: "src" | "dst",
  values: FirewallRule["src"],
): Prefix[] | undefined {
  if (values === undefined) return undefined;
  return asList(notEmpty(index, field, values)).map((text) => {
    if (typeof text !== "string") mustBe(index, field, "a prefix or an address", text);
    try {
      return parsePrefix(text);
    } catch (cause) {
      const rule = `${field} must be a prefix or an address, ${gotValue(text)}`;
      throw new SyntaxError(`Cannot ${attempt(index)}: ${rule}`, { cause });
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
    asList<PortRange>(notEmpty(index, field, values)).flatMap((value) => {
      return readPortRange(attempt(index), field, value, 0);
    }),
  );
}

function readIcmpTypes(index: number, values: FirewallRule["icmpType"]): Uint8Array | undefined {
  if (values === undefined) return undefined;
  return numbersOf(
    asList(notEmpty(index, "icmpType", values)).map((type) => {
      if (!isByte(type)) mustBe(index, "icmpType", "an integer from 0 to 255", type);
      return type;
    }),
  );
}

function readProtocol(index: number, value: string | number): number {
  const number = typeof value === "string" ? PROTOCOLS[value] : value;
  if (number === undefined || !isByte(number)) {
    const names = Object.keys(PROTOCOLS).join(", ");
    mustBe(index, "protocol", `an integer from 0 to 255 or one of ${names}`, value);
  }
  return number;
}

function readFlags(index: number, text: string): [flags: number, mask: number] {
  const match = typeof text === "string" ? /^([FSRPAUEW]*)\/([FSRPAUEW]+)$/.exec(text) : null;
  if (match === null) {
    mustBe(index, "tcpFlags", `flags and a mask of letters ${FLAG_LETTERS}, such as "S/SA"`, text);
  }
  const bits = (letters: string) =>
    Array.from(letters).reduce((flags, letter) => flags | 1 << FLAG_LETTERS.indexOf(letter), 0);
  const [flags, mask] = [bits(match[1]!), bits(match[2]!)];
  if ((flags & ~mask) !== 0) {
    mustBe(index, "tcpFlags", "flags that are all in the mask", text);
  }
  return [flags, mask];
}

function isByte(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 255;
}

function mustBe(index: number, field: string, rule: string, value: unknown): never {
  fail(index, `${field} must be ${rule}, ${gotValue(value)}`);
}

function fail(index: number, text: string): never {
  throw new TypeError(`Cannot ${attempt(index)}: ${text}`);
}

function attempt(index: number): string {
  return `use rule ${index + 1}`;
}
