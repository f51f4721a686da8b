/** Options of a device, checked before the system is touched. */

import { type Address, formatCidr, parseAddress, parseCidr, Prefix } from "../lib/wire/address.ts";
import { IPV4_MAX_LENGTH, IPV4_MIN_MTU, IPV6_MIN_MTU } from "../lib/wire/header_fields.ts";
import { checkInteger, checkOption, checkOptions, gotValue, type OptionKinds } from "../lib/core/options.ts";

/** A route through a device. */
export interface RouteOptions {
  /**
   * Destination prefix, such as `10.0.0.0/8` or `::/0`. `default` alone means both `0.0.0.0/0` and `::/0`; with any other
   * field it means `0.0.0.0/0`, or `::/0` if the next hop is IPv6. On Linux, macOS and FreeBSD, a default route without
   * metric and table is installed as two halves (`0.0.0.0/1`, `128.0.0.0/1`), which leave the existing one in place.
   */
  to: string;
  /** Next hop. @default {none: the prefix is on-link} */
  via?: string;
  /** Route metric; lower wins (Linux, Windows). @default {chosen by the system} */
  metric?: number;
  /** Routing table (Linux). @default {254, the main table} */
  table?: number;
}

/** A policy routing rule (Linux, ip-rule(8)): packets that match it use its routing table. */
export interface RuleOptions {
  /** Routing table. */
  table: number;
  /** Source prefix to match. @default {any} */
  from?: string;
  /** Destination prefix to match. @default {any} */
  to?: string;
  /** Firewall mark to match. @default {any} */
  mark?: number;
  /** Priority of the rule; lower is evaluated first. @default {chosen by the system} */
  priority?: number;
  /** IP version of a rule without prefixes. @default {4} */
  family?: 4 | 6;
}

/** Options for {@linkcode openDevice}. */
export interface DeviceOptions {
  /**
   * Name; `%d` stands for the first free number. At most 15 bytes without spaces on Linux, 127 UTF-16 code units on
   * Windows; `utunN` on macOS, `tunN` on FreeBSD. @default {"tun%d"}
   */
  name?: string;
  /** Addresses with their prefix length: `10.9.0.1/24`, `fd00::1/64`. */
  address?: string | string[];
  /** Routes through the device: `10.0.0.0/8`, `10.0.0.0/8 via 10.9.0.2 metric 5 table 100`, or objects. */
  route?: string | RouteOptions | (string | RouteOptions)[];
  /** Policy routing rules, removed when the device is closed (Linux). */
  rule?: RuleOptions | RuleOptions[];
  /** MTU (bytes). @default {1500; an existing device keeps its own} */
  mtu?: number;
  /** Brings the interface up. @default {true} */
  up?: boolean;
  /** Linux options, ignored on other systems. */
  linux?: {
    /** Length of the kernel's transmit queue (packets). @default {1000} */
    txQueueLength?: number;
    /** GSO and GRO: super-packets and partial checksums pass between kernel and script. @default {true} */
    offload?: boolean;
    /**
     * io_uring under load, on a device without offload. Linux 6.7 and later read many packets with one request
     * (multishot); 5.19 and later need one request per packet (`"oneshot"`). @default {true}
     */
    uring?: boolean | "oneshot";
    /**
     * Queues of the device, 1 to 256. Each is served by a worker that runs the same script, so more than one needs a
     * script module. @default {1}
     */
    queues?: number;
  };
  /** Windows options, ignored on other systems. */
  windows?: {
    /** Size of each of Wintun's two rings (bytes): a power of two, 128 KiB to 64 MiB. @default {16777216} */
    ringCapacity?: number;
    /** DNS servers while the device is open. @default {none} */
    dns?: string | string[];
    /** Interface metric, added to each route's; lower wins. @default {chosen by Windows; 0 with a default route} */
    metric?: number;
  };
}

/** A route, parsed. */
export interface CheckedRoute {
  /** Destination. */
  readonly to: Prefix;
  /** Next hop. */
  readonly via: Address | undefined;
  /** Metric. */
  readonly metric: number | undefined;
  /** Routing table. */
  readonly table: number | undefined;
  /** True for one of the two routes of `default`; the IPv6 one is skipped on a system without IPv6. */
  readonly isDefault?: boolean;
}

/** A policy routing rule, parsed. */
export interface CheckedRule {
  /** Routing table. */
  readonly table: number;
  /** IP version. */
  readonly family: 4 | 6;
  /** Source prefix. */
  readonly from: Prefix | undefined;
  /** Destination prefix. */
  readonly to: Prefix | undefined;
  /** Firewall mark. */
  readonly mark: number | undefined;
  /** Priority. */
  readonly priority: number | undefined;
}

/** Device options, checked and parsed; only the system can still refuse them. */
export interface CheckedDeviceOptions {
  /** Requested name. */
  readonly name: string;
  /** Addresses. */
  readonly addresses: readonly Prefix[];
  /** Routes. */
  readonly routes: readonly CheckedRoute[];
  /** Policy routing rules (Linux). */
  readonly rules: readonly CheckedRule[];
  /** MTU (bytes). */
  readonly mtu: number | undefined;
  /** True to bring the interface up. */
  readonly up: boolean;
  /** Length of the kernel's transmit queue (packets, Linux). */
  readonly txQueueLength: number | undefined;
  /** True for super-packets and partial checksums (Linux). */
  readonly offload: boolean;
  /** Use of io_uring (Linux). */
  readonly uring: boolean | "oneshot";
  /** Number of queues (Linux). */
  readonly queues: number;
  /** Size of each Wintun ring (bytes, Windows). */
  readonly ringCapacity: number;
  /** DNS servers (Windows). */
  readonly dns: readonly Address[];
  /** Interface metric (Windows). */
  readonly interfaceMetric: number | undefined;
}

const LINUX_OPTIONS: OptionKinds<NonNullable<DeviceOptions["linux"]>> = {
  txQueueLength: "number",
  offload: "boolean",
  uring: [true, false, "oneshot"],
  queues: "number",
};
const WINDOWS_OPTIONS: OptionKinds<NonNullable<DeviceOptions["windows"]>> = {
  ringCapacity: "number",
  dns: "texts",
  metric: "number",
};
/** Device options, with the kinds of their values. */
export const DEVICE_OPTIONS: OptionKinds<DeviceOptions> = {
  name: "text",
  address: "texts",
  route: "any",
  rule: "any",
  mtu: "number",
  up: "boolean",
  linux: LINUX_OPTIONS,
  windows: WINDOWS_OPTIONS,
};
const ROUTE_OPTIONS: OptionKinds<RouteOptions> = {
  to: "text",
  via: "text",
  metric: "number",
  table: "number",
};
const RULE_OPTIONS: OptionKinds<RuleOptions> = {
  table: "number",
  from: "text",
  to: "text",
  mark: "number",
  priority: "number",
  family: [4, 6],
};

// Specification
const MAX_U32 = 0xffff_ffff;
/** drivers/net/tun.c: MAX_TAP_QUEUES. */
const MAX_QUEUES = 256;
/** wintun.h: WINTUN_MIN_RING_CAPACITY, WINTUN_MAX_RING_CAPACITY. */
const MIN_RING_CAPACITY = 0x2_0000;
const MAX_RING_CAPACITY = 0x400_0000;

const DEFAULT_PREFIX = { 4: parseCidr("0.0.0.0/0"), 6: parseCidr("::/0") } as const;

// Implementation
const OPEN = "open a device";
const CANNOT_OPEN = `Cannot ${OPEN}`;
/** 134 ms of traffic at 1 Gbit/s. */
const DEFAULT_RING_CAPACITY = 0x100_0000;

/** Names of devices that a system accepts. */
interface NameRule {
  readonly max: number;
  readonly unit: string;
  readonly count: (name: string) => number;
  readonly forbidden: RegExp;
  readonly rule: string;
}

const NAME_RULES = {
  /** IFNAMSIZ, and dev_valid_name() of net/core/dev.c. */
  linux: {
    max: 15,
    unit: "bytes",
    count: (name) => new TextEncoder().encode(name).length,
    // deno-lint-ignore no-control-regex
    forbidden: /^\.{0,2}$|[\s/:\x00-\x1f\x7f-\x9f]/,
    rule: 'not be empty, "." or "..", and not contain spaces, "/", ":" or control characters',
  },
  /** MAX_ADAPTER_NAME of wintun.h, without its zero; characters that Windows refuses in a connection's name. */
  windows: {
    max: 127,
    unit: "UTF-16 code units",
    count: (name) => name.length,
    // deno-lint-ignore no-control-regex
    forbidden: /^$|^\s|\s$|[\\/:*?"<>|\x00-\x1f\x7f-\x9f]|\p{Cs}/u,
    rule: 'not be empty, contain \\ / : * ? " < > | or control characters, or start or end with a space',
  },
} as const satisfies Record<string, NameRule>;

/**
 * Parses a route: `PREFIX [via ADDRESS] [metric N] [table N]`, with `default` for the prefix or a prefix.
 *
 * @throws {SyntaxError} when the text has another form.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseRoute } from "@warren/tunnel/driver";
 *
 * const route = parseRoute("10.0.0.0/8 via 10.9.0.2 metric 5");
 * assert.deepEqual(route, { to: "10.0.0.0/8", via: "10.9.0.2", metric: 5 });
 * ```
 */
export function parseRoute(text: string): RouteOptions {
  const [to = "", ...words] = text.trim().split(/\s+/);
  const route: RouteOptions = { to: to === "default" && words.length > 0 ? "0.0.0.0/0" : to };
  for (let i = 0; i < words.length; i += 2) {
    const [key, value] = [words[i], words[i + 1]];
    if (value === undefined) throw new SyntaxError(`Cannot parse route "${text}": "${key}" has no value`);
    if (key === "via") route.via = value;
    else if (key === "metric" || key === "table") route[key] = wholeNumber(value, text, key);
    else {
      throw new SyntaxError(`Cannot parse route "${text}": "${key}" must be via, metric or table`);
    }
  }
  return route;
}

function wholeNumber(text: string, route: string, key: string): number {
  if (!/^\d+$/.test(text)) {
    throw new SyntaxError(`Cannot parse route "${route}": ${key} must be a number, got "${text}"`);
  }
  return Number(text);
}

/**
 * Checks and parses options without touching the system.
 *
 * @param os System whose rules for names and routes apply: Windows' or Linux's names, Linux's routes.
 */
export function checkDeviceOptions(
  options: DeviceOptions,
  os: typeof Deno.build.os = Deno.build.os,
): CheckedDeviceOptions {
  checkOptions(OPEN, options, DEVICE_OPTIONS);
  return parseDeviceOptions(options, os);
}

/** Parses options whose names and kinds are checked, like {@linkcode checkDeviceOptions}. */
export function parseDeviceOptions(
  options: DeviceOptions,
  os: typeof Deno.build.os = Deno.build.os,
): CheckedDeviceOptions {
  const { name = "tun%d", mtu, up = true } = options;
  checkName(name, NAME_RULES[os === "windows" ? "windows" : "linux"]);
  const addresses = list(options.address).map((text) => parsePrefix(text, "address"));
  if (mtu !== undefined) {
    checkInteger(OPEN, "mtu", mtu, IPV4_MIN_MTU, IPV4_MAX_LENGTH);
    const hasIpv6 = addresses.some((prefix) => prefix.address.family === 6);
    if (hasIpv6 && mtu < IPV6_MIN_MTU) {
      throw new RangeError(
        `${CANNOT_OPEN}: mtu must be at least ${IPV6_MIN_MTU} with an IPv6 address, got ${mtu}`,
      );
    }
  }
  const { txQueueLength, offload = true, uring = true, queues = 1 } = options.linux ?? {};
  checkInteger(OPEN, "linux.queues", queues, 1, MAX_QUEUES);
  if (txQueueLength !== undefined) checkInteger(OPEN, "linux.txQueueLength", txQueueLength, 1, MAX_U32);
  const { ringCapacity = DEFAULT_RING_CAPACITY, dns, metric } = options.windows ?? {};
  checkInteger(OPEN, "windows.ringCapacity", ringCapacity, MIN_RING_CAPACITY, MAX_RING_CAPACITY);
  if ((ringCapacity & ringCapacity - 1) !== 0) {
    throw new RangeError(`${CANNOT_OPEN}: windows.ringCapacity must be a power of two, got ${ringCapacity}`);
  }
  if (metric !== undefined) checkInteger(OPEN, "windows.metric", metric, 0, MAX_U32);
  return {
    name,
    addresses,
    routes: withoutRepetition(list(options.route).flatMap((route) => checkRoute(route, os))),
    rules: list(options.rule).map(checkRule),
    mtu,
    up,
    txQueueLength,
    offload,
    uring,
    queues,
    ringCapacity,
    dns: list(dns).map(parseAddress),
    interfaceMetric: metric,
  };
}

function checkName(name: string, { max, unit, count, forbidden, rule }: NameRule): void {
  const length = count(name);
  if (length > max) {
    throw new RangeError(
      `Cannot open device "${name}": name must have at most ${max} ${unit}, got ${length}`,
    );
  }
  if (forbidden.test(name)) {
    throw new TypeError(`Cannot open device ${JSON.stringify(name)}: name must ${rule}`);
  }
  if (/%(?!d)|%.*%/.test(name)) {
    throw new TypeError(`Cannot open device "${name}": name must contain "%" only once, in "%d"`);
  }
}

function checkRoute(option: string | RouteOptions, os: typeof Deno.build.os): CheckedRoute[] {
  const route = typeof option === "string" ? parseRoute(option) : option;
  if (typeof route !== "object" || route === null) {
    throw new TypeError(`Cannot ${OPEN}: route must be a string or an object, ${gotValue(route)}`);
  }
  const attempt = "route through a device";
  checkOptions(attempt, route, ROUTE_OPTIONS, ["to"]);
  const { metric, table } = route;
  const via = route.via === undefined ? undefined : parseAddress(route.via);
  if (metric !== undefined) checkInteger(attempt, "metric", metric, 0, MAX_U32);
  if (table !== undefined) checkInteger(attempt, "table", table, 1, MAX_U32);
  const isDefault = route.to === "default" && via === undefined && metric === undefined &&
    table === undefined;
  const tos = isDefault
    ? [DEFAULT_PREFIX[4], DEFAULT_PREFIX[6]]
    : [route.to === "default" ? DEFAULT_PREFIX[via?.family ?? 4] : parsePrefix(route.to, "route")];
  return tos.map((to) => {
    if (os === "linux") checkNetwork(to);
    if (via !== undefined && via.family !== to.address.family) {
      throw new TypeError(`Cannot route ${route.to} via ${route.via}: both must be IPv4, or both IPv6`);
    }
    return { to, via, metric, table, ...(isDefault ? { isDefault } : {}) };
  });
}

/** Checks that no bit of a route's prefix is set beyond its length; Linux would report that only as EINVAL. */
function checkNetwork(to: Prefix): void {
  const whole = formatCidr(new Prefix(to.network, to.length));
  if (formatCidr(to) === whole) return;
  const host = formatCidr(new Prefix(to.address, to.address.bytes.length * 8));
  throw new SyntaxError(
    `Cannot add a route: its address must have no bits beyond the prefix length, got ${formatCidr(to)}: ` +
      `write ${whole}, or ${host} for one host`,
  );
}

/** Removes a route of `default` if another route covers all of its IP version. */
function withoutRepetition(routes: CheckedRoute[]): CheckedRoute[] {
  const isSame = (one: CheckedRoute, other: CheckedRoute) =>
    one !== other && one.to.length === 0 && one.to.address.family === other.to.address.family;
  return routes.filter((one) => one.isDefault !== true || !routes.some((other) => isSame(other, one)));
}

function checkRule(rule: RuleOptions): CheckedRule {
  checkOption(OPEN, "rule", rule, "object");
  const attempt = "add a rule";
  checkOptions(attempt, rule, RULE_OPTIONS, ["table"]);
  const from = rule.from === undefined ? undefined : parsePrefix(rule.from, "rule");
  const to = rule.to === undefined ? undefined : parsePrefix(rule.to, "rule");
  const family = (from ?? to)?.address.family ?? rule.family ?? 4;
  if (
    to !== undefined && to.address.family !== family || rule.family !== undefined && rule.family !== family
  ) {
    throw new TypeError("Cannot add a rule: from, to and family must be of the same IP version");
  }
  checkInteger(attempt, "table", rule.table, 1, MAX_U32);
  if (rule.mark !== undefined) checkInteger(attempt, "mark", rule.mark, 0, MAX_U32);
  if (rule.priority !== undefined) checkInteger(attempt, "priority", rule.priority, 0, MAX_U32);
  return { table: rule.table, family, from, to, mark: rule.mark, priority: rule.priority };
}

function parsePrefix(text: string, what: string): Prefix {
  if (!text.includes("/")) {
    throw new SyntaxError(
      `Cannot parse ${what} "${text}": it has no prefix length: write ${text}/${
        text.includes(":") ? 64 : 24
      }`,
    );
  }
  return parseCidr(text);
}

/** Returns one value or several as an array, in which gaps are `undefined`. */
function list<T>(value: T | T[] | undefined): T[] {
  return value === undefined ? [] : Array.isArray(value) ? [...value] : [value];
}
