/** What a NAPT is told, and what it makes of that. */

import { parseIpv4, parsePrefix, type Prefix } from "../../wire/address.ts";
import { isUnicast4 } from "../../wire/unicast.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";

// Implementation
const NAMES: OptionNames<Napt44Options> = {
  outside: "needed",
  inside: "optional",
  ports: "text",
  filtering: "optional",
  forwards: "list",
  unmatched: "text",
  timeouts: "optional",
  capacity: "number",
  flowsPerHost: "number",
  fragments: "number",
  random: "function",
};
const TIMEOUTS: OptionNames<NaptTimeouts> = {
  tcpEstablished: "number",
  tcpTransitory: "number",
  udp: "number",
  icmp: "number",
};
const FORWARD: OptionNames<PortForward> = {
  protocol: "needed text",
  port: "needed",
  to: "needed text",
  address: "text",
};
const CAPACITY = 65_536;
const MAX_CAPACITY = 2 ** 20;
const MAX_ADDRESSES = 64;
const MAX_PORT = 65_535;
const FRAGMENTS = 1024;

/** Whom a mapping lets in (RFC 4787 section 5), from the most open to the strictest. */
export type Filtering = "endpoint-independent" | "address-dependent" | "address-and-port-dependent";

const FILTERINGS: readonly Filtering[] = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
];

/** A port, or a range of them, that is always mapped to an inside host. */
export interface PortForward {
  /** What is forwarded. */
  readonly protocol: "tcp" | "udp";
  /** The outside port, or a range such as `"8000-8010"`. */
  readonly port: number | string;
  /** The inside address, with the first port there when it is another: `"10.9.0.5"`, `"10.9.0.5:80"`. */
  readonly to: string;
  /** The outside address. @default {every one} */
  readonly address?: string;
}

/** How long a flow may be idle (milliseconds). */
export interface NaptTimeouts {
  /** A TCP connection that is open (RFC 5382 REQ-5). @default {7440000} */
  readonly tcpEstablished?: number;
  /** A TCP connection that is opening or closing (RFC 5382 REQ-5). @default {240000} */
  readonly tcpTransitory?: number;
  /** UDP (RFC 4787 REQ-5). @default {300000} */
  readonly udp?: number;
  /** ICMP queries (RFC 5508 REQ-2). @default {60000} */
  readonly icmp?: number;
}

/** What a `Napt44` is made of. */
export interface Napt44Options {
  /** The addresses that the outside sees: one or several, or prefixes of them; 64 addresses at most. */
  readonly outside: string | readonly string[];
  /** The sources that are translated, as prefixes; other packets pass. @default {"0.0.0.0/0"} */
  readonly inside?: string | readonly string[];
  /** The outside ports that mappings get, as a range. @default {"1-65535"} */
  readonly ports?: string;
  /** Whom a mapping lets in (RFC 4787 REQ-8). @default {"address-dependent"} */
  readonly filtering?: Filtering;
  /** Ports that are always mapped to inside hosts. @default {none} */
  readonly forwards?: readonly PortForward[];
  /** What becomes of packets from outside that are not for an outside address. @default {"pass"} */
  readonly unmatched?: "pass" | "drop";
  /** How long flows may be idle. */
  readonly timeouts?: NaptTimeouts;
  /** How many flows there is room for, of each protocol; up to 2 to the 20th. @default {65536} */
  readonly capacity?: number;
  /** The most flows that one inside address may open; those opened from outside do not count. @default {Infinity} */
  readonly flowsPerHost?: number;
  /** The most fragmented packets known at once; of the source with the most, the oldest makes room. @default {1024} */
  readonly fragments?: number;
  /** A whole number from 0 to 2 to the 32nd, less 1, by which ports are chosen: for tests. @default {random} */
  readonly random?: () => number;
}

/** A rule of `forwards`, read. */
export interface Forward {
  readonly protocol: number;
  readonly firstPort: number;
  readonly lastPort: number;
  readonly inside: number;
  readonly insidePort: number;
  /** Which outside address; -1 for every one. */
  readonly address: number;
}

/** The options, read. */
export interface CheckedNaptOptions {
  /** In ascending order. */
  readonly outside: Uint32Array;
  readonly inside: readonly Prefix[];
  readonly firstPort: number;
  readonly lastPort: number;
  readonly filtering: Filtering;
  readonly forwards: readonly Forward[];
  readonly unmatched: "pass" | "drop";
  readonly timeouts: Required<NaptTimeouts>;
  readonly capacity: number;
  readonly flowsPerHost: number;
  readonly fragments: number;
  readonly random: () => number;
}

/** Reads the options; throws as `Napt44` says. */
export function checkNaptOptions(options: Napt44Options): CheckedNaptOptions {
  checkNames("make a NAT", options, NAMES);
  checkNames("make a NAT with these timeouts", options.timeouts ?? {}, TIMEOUTS);
  const { inside = "0.0.0.0/0", ports = `1-${MAX_PORT}`, filtering = "address-dependent" } = options;
  const { unmatched = "pass", capacity = CAPACITY, flowsPerHost = Infinity, fragments = FRAGMENTS } = options;
  const { random = chance(), forwards = [] } = options;
  const {
    tcpEstablished = 7_440_000,
    tcpTransitory = 240_000,
    udp = 300_000,
    icmp = 60_000,
  } = options.timeouts ?? {};
  if (!Array.isArray(forwards)) throw new TypeError("Cannot forward ports: forwards is no list of rules");
  const outside = readAddresses([options.outside].flat());
  const [firstPort, lastPort] = readPorts(ports);
  if (!FILTERINGS.includes(filtering)) {
    throw new TypeError(
      `Cannot filter ${JSON.stringify(filtering)}: it is one of ${FILTERINGS.join(", ")}`,
    );
  }
  if (unmatched !== "pass" && unmatched !== "drop") {
    throw new TypeError(`Cannot ${JSON.stringify(unmatched)} packets for unmatched: "pass" or "drop"`);
  }
  checkCount("capacity", capacity, MAX_CAPACITY);
  checkCount("fragments", fragments, MAX_CAPACITY);
  if (flowsPerHost !== Infinity) checkCount("flowsPerHost", flowsPerHost, Number.MAX_SAFE_INTEGER);
  const timeouts = { tcpEstablished, tcpTransitory, udp, icmp };
  for (const [name, timeout] of Object.entries(timeouts)) {
    if (typeof timeout === "number" && timeout > 0) continue;
    throw new RangeError(`Cannot make a NAT with a ${name} of ${timeout} ms: above 0 is`);
  }
  const sources = [inside].flat().map((text) => readIpv4Prefix(text as string));
  if (sources.length === 0) throw new TypeError("Cannot translate: there is no inside prefix");
  const rules = forwards.map((forward) => readForward(forward, outside));
  rules.forEach((rule, i) => {
    const other = rules.findIndex((other) => overlap(rule, other));
    if (other === i) return;
    throw new TypeError(`Cannot forward by rules ${other + 1} and ${i + 1} of forwards: they share a port`);
  });
  return {
    outside,
    inside: sources,
    firstPort,
    lastPort,
    filtering,
    forwards: rules,
    unmatched,
    timeouts,
    capacity,
    flowsPerHost,
    fragments,
    random,
  };
}

/** An IPv4 prefix; an address alone is one of 32 bits. */
export function readIpv4Prefix(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix.address.family !== 4) throw new TypeError(`Cannot translate ${text}: it is not IPv4`);
  return prefix;
}

/** A prefix's first address, as a number. */
export function firstAddress(prefix: Prefix): number {
  const { bytes } = prefix.network;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}

function readAddresses(texts: readonly string[]): Uint32Array {
  const addresses = new Set<number>();
  for (const text of texts) {
    const prefix = readIpv4Prefix(text);
    const count = 2 ** (32 - prefix.length);
    if (addresses.size + count > MAX_ADDRESSES) {
      throw new RangeError(`Cannot translate to ${texts.join(", ")}: ${MAX_ADDRESSES} addresses is the most`);
    }
    for (let i = 0; i < count; i++) {
      if (!isUnicast4(firstAddress(prefix) + i)) {
        throw new RangeError(`Cannot translate to ${text}: it is no address of a host`);
      }
      addresses.add(firstAddress(prefix) + i);
    }
  }
  if (addresses.size === 0) throw new TypeError("Cannot translate: there is no outside address");
  return Uint32Array.from(addresses).sort();
}

function readPorts(text: string | number): [number, number] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(text));
  if (match === null) throw new SyntaxError(`Cannot parse ports ${JSON.stringify(text)}: at column 1`);
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  if (first < 1 || last > MAX_PORT || first > last) {
    throw new RangeError(`Cannot use ports ${text}: 1-${MAX_PORT} are possible`);
  }
  return [first, last];
}

function readForward(forward: PortForward, outside: Uint32Array): Forward {
  checkNames("forward a port", forward, FORWARD);
  const { protocol, port, to, address } = forward;
  if (protocol !== "tcp" && protocol !== "udp") {
    throw new TypeError(`Cannot forward ${JSON.stringify(protocol)}: "tcp" or "udp"`);
  }
  const [firstPort, lastPort] = readPorts(port);
  const [host, insidePort = String(firstPort), ...rest] = String(to).split(":");
  if (rest.length > 0) {
    throw new SyntaxError(`Cannot forward to ${JSON.stringify(to)}: "10.9.0.5:80" is possible`);
  }
  const [first] = readPorts(insidePort);
  if (first + lastPort - firstPort > MAX_PORT) {
    throw new RangeError(`Cannot forward ports ${port} to ${to}: they end above ${MAX_PORT}`);
  }
  const at = address === undefined ? -1 : outside.indexOf(parseIpv4(address));
  if (address !== undefined && at < 0) {
    throw new TypeError(`Cannot forward from ${address}: it is no outside address`);
  }
  return {
    protocol: protocol === "tcp" ? Protocol.Tcp : Protocol.Udp,
    firstPort,
    lastPort,
    inside: parseIpv4(host!),
    insidePort: first,
    address: at,
  };
}

/** Whether two rules are for one port of one address. */
function overlap(one: Forward, other: Forward): boolean {
  return one.protocol === other.protocol && one.firstPort <= other.lastPort &&
    other.firstPort <= one.lastPort &&
    (one.address === other.address || one.address < 0 || other.address < 0);
}

function checkCount(name: string, count: number, most: number): void {
  if (!Number.isInteger(count) || count < 1 || count > most) {
    throw new RangeError(`Cannot make a NAT with a ${name} of ${count}: 1 to ${most} are possible`);
  }
}

/** Random numbers that nobody can guess (RFC 6056 section 3), drawn many at a time. */
function chance(): () => number {
  const numbers = new Uint32Array(256);
  let next = numbers.length;
  return () => {
    if (next === numbers.length) {
      crypto.getRandomValues(numbers);
      next = 0;
    }
    return numbers[next++]!;
  };
}
