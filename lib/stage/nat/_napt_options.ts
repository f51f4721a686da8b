/** Options of {@linkcode Napt44}, and their checks. */

import { parseIpv4, parsePrefix, type Prefix } from "../../wire/address.ts";
import { isUnicast4 } from "../../wire/unicast.ts";
import { checkInteger, checkMin, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { readPortRange } from "../../wire/port_range.ts";
import { Protocol } from "../../wire/protocol.ts";

// Implementation
const TIMEOUTS: OptionKinds<NaptTimeouts> = {
  tcpEstablished: "number",
  tcpTransitory: "number",
  udp: "number",
  icmp: "number",
};
const NAMES: OptionKinds<Napt44Options> = {
  outside: "texts",
  inside: "texts",
  ports: "text",
  filtering: ["endpoint-independent", "address-dependent", "address-and-port-dependent"],
  forwards: "list",
  unmatched: ["pass", "drop"],
  timeouts: TIMEOUTS,
  capacity: "number",
  flowsPerHost: "number",
  fragments: "number",
  random: "function",
};
const FORWARD: OptionKinds<PortForward> = {
  protocol: ["tcp", "udp"],
  port: "any",
  to: "text",
  address: "text",
};
const ATTEMPT = "create a Napt44";
const FORWARDING = "forward a port";
const CAPACITY = 65_536;
const MAX_CAPACITY = 2 ** 20;
const MAX_ADDRESSES = 64;
const MAX_PORT = 65_535;
const FRAGMENTS = 1024;

/** Filtering behaviour: the senders that a mapping admits (RFC 4787 section 5), from the most open to the strictest. */
export type Filtering = "endpoint-independent" | "address-dependent" | "address-and-port-dependent";

/** Port forwarding: a port, or a range of ports, that is always mapped to an inside host. */
export interface PortForward {
  /** Protocol. */
  readonly protocol: "tcp" | "udp";
  /** Outside port, or a range such as `"8000-8010"`. */
  readonly port: number | string;
  /** Inside address, with the first inside port if it differs: `"10.9.0.5"`, `"10.9.0.5:80"`. */
  readonly to: string;
  /** Outside address. @default {all outside addresses} */
  readonly address?: string;
}

/** Idle timeouts of flows (milliseconds). */
export interface NaptTimeouts {
  /** Open TCP connection (RFC 5382 REQ-5). @default {7440000} */
  readonly tcpEstablished?: number;
  /** TCP connection that is opening or closing (RFC 5382 REQ-5). @default {240000} */
  readonly tcpTransitory?: number;
  /** UDP flow (RFC 4787 REQ-5). @default {300000} */
  readonly udp?: number;
  /** ICMP query (RFC 5508 REQ-2). @default {60000} */
  readonly icmp?: number;
}

/** Options of {@linkcode Napt44}. */
export interface Napt44Options {
  /** Outside addresses, or prefixes of them; at most 64 addresses. */
  readonly outside: string | readonly string[];
  /** Prefixes of sources to translate; packets from other sources pass. @default {"0.0.0.0/0"} */
  readonly inside?: string | readonly string[];
  /** Range of outside ports for mappings. @default {"1-65535"} */
  readonly ports?: string;
  /** Senders that a mapping admits (RFC 4787 REQ-8). @default {"address-dependent"} */
  readonly filtering?: Filtering;
  /** Ports that are always mapped to inside hosts. @default {none} */
  readonly forwards?: readonly PortForward[];
  /** Handling of inbound packets whose destination is not an outside address. @default {"pass"} */
  readonly unmatched?: "pass" | "drop";
  /** Idle timeouts of flows. */
  readonly timeouts?: NaptTimeouts;
  /** Maximum flows of each protocol, up to 2^20. @default {65536} */
  readonly capacity?: number;
  /** Maximum flows that an inside address may open; flows opened from outside do not count. @default {Infinity} */
  readonly flowsPerHost?: number;
  /** Maximum fragmented packets known at once; the oldest of the source with the most makes room. @default {1024} */
  readonly fragments?: number;
  /** Source of random integers from 0 to 2^32 - 1 for the choice of ports, for tests. @default {random} */
  readonly random?: () => number;
}

/** Checked rule of `forwards`. */
export interface Forward {
  readonly protocol: number;
  readonly firstPort: number;
  readonly lastPort: number;
  readonly inside: number;
  readonly insidePort: number;
  /** Index of the outside address; -1 for all. */
  readonly address: number;
}

export interface CheckedNaptOptions {
  /** Outside addresses in ascending order. */
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

/** Checks the options; throws as the constructor of `Napt44` does. */
export function checkNaptOptions(options: Napt44Options): CheckedNaptOptions {
  checkOptions(ATTEMPT, options, NAMES, ["outside"]);
  const { inside = "0.0.0.0/0", ports = `1-${MAX_PORT}`, filtering = "address-dependent" } = options;
  const { unmatched = "pass", capacity = CAPACITY, flowsPerHost = Infinity, fragments = FRAGMENTS } = options;
  const { random = randomWords(), forwards = [] } = options;
  const {
    tcpEstablished = 7_440_000,
    tcpTransitory = 240_000,
    udp = 300_000,
    icmp = 60_000,
  } = options.timeouts ?? {};
  const outside = readAddresses([options.outside].flat());
  const [firstPort, lastPort] = readPortRange(ATTEMPT, "ports", ports, 1);
  checkInteger(ATTEMPT, "capacity", capacity, 1, MAX_CAPACITY);
  checkInteger(ATTEMPT, "fragments", fragments, 1, MAX_CAPACITY);
  if (flowsPerHost !== Infinity) {
    checkInteger(ATTEMPT, "flowsPerHost", flowsPerHost, 1, Number.MAX_SAFE_INTEGER);
  }
  const timeouts = { tcpEstablished, tcpTransitory, udp, icmp };
  for (const [name, timeout] of Object.entries(timeouts)) checkMin(ATTEMPT, `timeouts.${name}`, timeout, 1);
  const sources = [inside].flat().map((text) => readIpv4Prefix(text as string));
  if (sources.length === 0) {
    throw new TypeError(`Cannot ${ATTEMPT}: inside must be at least one prefix, got an empty list`);
  }
  const rules = forwards.map((forward) => readForward(forward, outside));
  rules.forEach((rule, i) => {
    const other = rules.findIndex((other) => overlap(rule, other));
    if (other === i) return;
    throw new TypeError(`Cannot ${ATTEMPT}: forwards[${other}] and forwards[${i}] must not share a port`);
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

/** Parses an IPv4 prefix; a single address is a prefix of 32 bits. */
export function readIpv4Prefix(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix.address.family === 4) return prefix;
  throw new TypeError(`Cannot translate addresses: prefix must be IPv4, ${gotValue(text)}`);
}

/** First address of a prefix, as a number. */
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
      throw new RangeError(
        `Cannot ${ATTEMPT}: outside must be at most ${MAX_ADDRESSES} addresses, got ${texts.join(", ")}`,
      );
    }
    for (let i = 0; i < count; i++) {
      if (!isUnicast4(firstAddress(prefix) + i)) {
        throw new RangeError(`Cannot ${ATTEMPT}: outside must be addresses of hosts, ${gotValue(text)}`);
      }
      addresses.add(firstAddress(prefix) + i);
    }
  }
  if (addresses.size === 0) {
    throw new TypeError(`Cannot ${ATTEMPT}: outside must be at least one address, got an empty list`);
  }
  return Uint32Array.from(addresses).sort();
}

function readForward(forward: PortForward, outside: Uint32Array): Forward {
  checkOptions(FORWARDING, forward, FORWARD, ["protocol", "port", "to"]);
  const { protocol, port, to, address } = forward;
  const [firstPort, lastPort] = readPortRange(FORWARDING, "port", port, 1);
  const [, host, toPort = firstPort] = /^([^:]+)(?::(\d+))?$/.exec(to) ?? [];
  if (host === undefined) {
    throw new SyntaxError(
      `Cannot ${FORWARDING}: to must be like "10.9.0.5" or "10.9.0.5:80", ${gotValue(to)}`,
    );
  }
  const insidePort = Number(toPort);
  if (insidePort < 1 || insidePort + lastPort - firstPort > MAX_PORT) {
    throw new RangeError(`Cannot ${FORWARDING}: ports at to must be from 1 to ${MAX_PORT}, ${gotValue(to)}`);
  }
  const at = address === undefined ? -1 : outside.indexOf(parseIpv4(address));
  if (address !== undefined && at < 0) {
    throw new TypeError(`Cannot ${FORWARDING}: address must be one of outside, ${gotValue(address)}`);
  }
  return {
    protocol: protocol === "tcp" ? Protocol.Tcp : Protocol.Udp,
    firstPort,
    lastPort,
    inside: parseIpv4(host),
    insidePort,
    address: at,
  };
}

/** Reports whether two rules share a port of an address. */
function overlap(one: Forward, other: Forward): boolean {
  return one.protocol === other.protocol && one.firstPort <= other.lastPort &&
    other.firstPort <= one.lastPort &&
    (one.address === other.address || one.address < 0 || other.address < 0);
}

/** Unpredictable random numbers (RFC 6056 section 3), drawn 256 at a time. */
function randomWords(): () => number {
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
