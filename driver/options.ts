/** What a device is asked to be: options as people write them, checked before the system is touched. */

import { type Address, parseAddress, parseCidr, Prefix } from "../lib/wire/address.ts";
import { checkNames, type OptionNames } from "../lib/core/options.ts";

/** A route through a device. */
export interface RouteOptions {
  /**
   * The destination, such as `10.0.0.0/8` or `::/0`. `default` by itself is everywhere, by IPv4 and IPv6; with any of the
   * other fields it is `0.0.0.0/0`, or `::/0` with an IPv6 next hop. On Linux, macOS and FreeBSD, a route to everywhere
   * without metric and table is made of two halves, beside the default route that is there.
   */
  to: string;
  /** The next hop, where there is one. */
  via?: string;
  /** Its preference; lower wins (Linux, Windows). @default {the system's} */
  metric?: number;
  /** The routing table (Linux). @default {254, the main table} */
  table?: number;
}

/** A policy rule (Linux, ip-rule(8)): which packets look into which routing table. */
export interface RuleOptions {
  /** The routing table. */
  table: number;
  /** Only packets from this prefix. */
  from?: string;
  /** Only packets to this prefix. */
  to?: string;
  /** Only packets with this mark. */
  mark?: number;
  /** Its place among the rules; lower is looked at first. @default {the system's} */
  priority?: number;
  /** For a rule without prefixes: IPv4 or IPv6. @default {4} */
  family?: 4 | 6;
}

/** What a device is asked to be. */
export interface DeviceOptions {
  /**
   * Its name; a `%d` in it is replaced with the first number that is free. On Linux it has at most 15 bytes, none of
   * them a space; on Windows at most 127 units of UTF-16; macOS has `utunN` alone. @default {"tun%d"}
   */
  name?: string;
  /** Its addresses, each with the length of its network's prefix: `10.9.0.1/24`, `fd00::1/64`. */
  address?: string | string[];
  /** Routes through it: `10.0.0.0/8`, `10.0.0.0/8 via 10.9.0.2 metric 5 table 100`, or as objects. */
  route?: string | RouteOptions | (string | RouteOptions)[];
  /** Policy rules that live as long as the device (Linux). */
  rule?: RuleOptions | RuleOptions[];
  /** The longest packet that the system sends through it (bytes). @default {1500, or what an existing one has} */
  mtu?: number;
  /** Whether it is set up at once. @default {true} */
  up?: boolean;
  /** Options of Linux alone; other systems pass them over. */
  linux?: {
    /** Packets that wait in the kernel for the script. @default {1000} */
    txQueueLength?: number;
    /** Whether the kernel hands over and takes super-packets and unfinished sums. @default {true} */
    offload?: boolean;
    /**
     * Whether io_uring reads and writes while many packets come, on a device without offload, where the kernel has what
     * that needs: since 5.19 a read for each packet (`"oneshot"`), since 6.7 one for many. @default {true}
     */
    uring?: boolean | "oneshot";
    /**
     * How many queues the device has, 1 to 256. Each is served by a worker of its own, which runs the same script:
     * so several are for a script's module alone. @default {1}
     */
    queues?: number;
  };
  /** Options of Windows alone; other systems pass them over. */
  windows?: {
    /** The bytes of each of Wintun's two rings, which stay in memory: a power of two, 128 KiB to 64 MiB. @default {16777216} */
    ringCapacity?: number;
    /** Name servers while the device is open. */
    dns?: string | string[];
    /** The interface's own preference, added to its routes'; lower wins. @default {the system's; 0 with a route to everywhere} */
    metric?: number;
  };
}

/** A route, parsed. */
export interface CheckedRoute {
  /** Where it leads. */
  readonly to: Prefix;
  /** The next hop. */
  readonly via: Address | undefined;
  /** Its preference. */
  readonly metric: number | undefined;
  /** The routing table. */
  readonly table: number | undefined;
  /** True for `default`: to everywhere by IPv4 and IPv6, as far as the system has both. */
  readonly isDefault?: boolean;
}

/** A policy rule, parsed. */
export interface CheckedRule {
  /** The routing table. */
  readonly table: number;
  /** 4 or 6. */
  readonly family: 4 | 6;
  /** The prefix that it comes from. */
  readonly from: Prefix | undefined;
  /** The prefix that it goes to. */
  readonly to: Prefix | undefined;
  /** The mark. */
  readonly mark: number | undefined;
  /** Its place. */
  readonly priority: number | undefined;
}

/** Options that make sense: whatever is wrong with them now is up to the system. */
export interface CheckedDeviceOptions {
  /** The name asked for. */
  readonly name: string;
  /** Its addresses. */
  readonly addresses: readonly Prefix[];
  /** Its routes. */
  readonly routes: readonly CheckedRoute[];
  /** Its rules. */
  readonly rules: readonly CheckedRule[];
  /** The longest packet (bytes). */
  readonly mtu: number | undefined;
  /** Whether it is set up. */
  readonly up: boolean;
  /** The kernel's queue (packets). */
  readonly txQueueLength: number | undefined;
  /** Whether super-packets and unfinished sums pass (Linux). */
  readonly offload: boolean;
  /** Whether io_uring is tried (Linux). */
  readonly uring: boolean | "oneshot";
  /** How many queues it has (Linux). */
  readonly queues: number;
  /** Wintun's rings (bytes each). */
  readonly ringCapacity: number;
  /** Name servers (Windows). */
  readonly dns: readonly Address[];
  /** The interface's preference (Windows). */
  readonly interfaceMetric: number | undefined;
}

/** The names of all of them. */
export const DEVICE_OPTIONS: Readonly<Record<keyof DeviceOptions, "optional">> = {
  name: "optional",
  address: "optional",
  route: "optional",
  rule: "optional",
  mtu: "optional",
  up: "optional",
  linux: "optional",
  windows: "optional",
};
const LINUX_OPTIONS: OptionNames<NonNullable<DeviceOptions["linux"]>> = {
  txQueueLength: "optional",
  offload: "optional",
  uring: "optional",
  queues: "optional",
};
const WINDOWS_OPTIONS: OptionNames<NonNullable<DeviceOptions["windows"]>> = {
  ringCapacity: "optional",
  dns: "optional",
  metric: "optional",
};
const ROUTE_OPTIONS: OptionNames<RouteOptions> = {
  to: "needed",
  via: "optional",
  metric: "optional",
  table: "optional",
};
const RULE_OPTIONS: OptionNames<RuleOptions> = {
  table: "needed",
  from: "optional",
  to: "optional",
  mark: "optional",
  priority: "optional",
  family: "optional",
};

// Specification
/** The longest packet that IP has. */
const MAX_MTU = 65_535;
/** RFC 791 section 3.2: every module must forward 68 bytes. */
const MIN_MTU = 68;
/** RFC 8200 section 5. */
const MIN_MTU_IPV6 = 1280;
const MAX_U32 = 0xffff_ffff;
/** drivers/net/tun.c: MAX_TAP_QUEUES. */
const MAX_QUEUES = 256;
/** wintun.h: WINTUN_MIN_RING_CAPACITY, WINTUN_MAX_RING_CAPACITY. */
const MIN_RING = 0x2_0000;
const MAX_RING = 0x400_0000;

const EVERYWHERE = { 4: parseCidr("0.0.0.0/0"), 6: parseCidr("::/0") } as const;

// Implementation
/** At 1 Gbit/s, what comes in 134 ms. */
const RING = 0x100_0000;

/** What a system takes for a device's name. */
interface NameRule {
  readonly most: number;
  readonly unit: string;
  readonly count: (name: string) => number;
  readonly forbidden: RegExp;
  readonly said: string;
}

const NAME_RULES = {
  /** IFNAMSIZ, and dev_valid_name() of net/core/dev.c. */
  linux: {
    most: 15,
    unit: "bytes",
    count: (name) => new TextEncoder().encode(name).length,
    // deno-lint-ignore no-control-regex
    forbidden: /^\.{0,2}$|[\s/:\x00-\x1f\x7f-\x9f]/,
    said: 'a name has no space, "/", ":" or control character in it',
  },
  /** MAX_ADAPTER_NAME of wintun.h, less its zero; what Windows refuses in the name of a connection. */
  windows: {
    most: 127,
    unit: "units",
    count: (name) => name.length,
    // deno-lint-ignore no-control-regex
    forbidden: /^$|^\s|\s$|[\\/:*?"<>|\x00-\x1f\x7f-\x9f]|\p{Cs}/u,
    said: 'a name has none of \\ / : * ? " < > | or control characters in it, and no space at its ends',
  },
} as const satisfies Record<string, NameRule>;

/**
 * A route as text: `PREFIX [via ADDRESS] [metric N] [table N]`, or `default` for the prefix.
 *
 * @throws {SyntaxError} when it is anything else.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseRoute } from "@warren/tunnel/driver";
 *
 * assert(parseRoute("10.0.0.0/8 metric 5").metric === 5);
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
      throw new SyntaxError(`Cannot parse route "${text}": "${key}" is none of via, metric, table`);
    }
  }
  return route;
}

function wholeNumber(text: string, route: string, key: string): number {
  if (!/^\d+$/.test(text)) {
    throw new SyntaxError(`Cannot parse route "${route}": ${key} "${text}" is no number`);
  }
  return Number(text);
}

/**
 * Checks options, without asking the system; what is none of {@linkcode DEVICE_OPTIONS} is another's to check.
 *
 * @param os Whose names are meant: Windows' rules differ from everybody else's.
 */
export function checkDeviceOptions(
  options: DeviceOptions,
  os: typeof Deno.build.os = Deno.build.os,
): CheckedDeviceOptions {
  const { name = "tun%d", mtu, up = true } = options;
  if (typeof name !== "string") throw new TypeError(`Cannot use name ${Deno.inspect(name)}: it is no text`);
  if (typeof up !== "boolean") throw new TypeError(`Cannot use up ${Deno.inspect(up)}: it is true or false`);
  checkName(name, NAME_RULES[os === "windows" ? "windows" : "linux"]);
  const addresses = list(options.address).map((text) => parsePrefix(text, "address"));
  if (mtu !== undefined) {
    checkNumber(mtu, MIN_MTU, MAX_MTU, "MTU");
    const six = addresses.some((prefix) => prefix.address.family === 6);
    if (six && mtu < MIN_MTU_IPV6) {
      throw new RangeError(`Cannot use MTU ${mtu} with an IPv6 address: it must be at least ${MIN_MTU_IPV6}`);
    }
  }
  const { txQueueLength, offload = true, uring = true, queues = 1 } = options.linux ?? {};
  checkNames("open a device on Linux", options.linux ?? {}, LINUX_OPTIONS);
  checkNames("open a device on Windows", options.windows ?? {}, WINDOWS_OPTIONS);
  if (typeof offload !== "boolean") {
    throw new TypeError(`Cannot use linux.offload ${Deno.inspect(offload)}: it is true or false`);
  }
  if (typeof uring !== "boolean" && uring !== "oneshot") {
    throw new TypeError(`Cannot use linux.uring ${Deno.inspect(uring)}: it is true, false or "oneshot"`);
  }
  checkNumber(queues, 1, MAX_QUEUES, "number of queues");
  if (txQueueLength !== undefined) checkNumber(txQueueLength, 1, MAX_U32, "queue length");
  const { ringCapacity = RING, dns, metric } = options.windows ?? {};
  checkNumber(ringCapacity, MIN_RING, MAX_RING, "ring capacity");
  if ((ringCapacity & ringCapacity - 1) !== 0) {
    throw new RangeError(`Cannot use ring capacity ${ringCapacity}: it is no power of two`);
  }
  if (metric !== undefined) checkNumber(metric, 0, MAX_U32, "metric");
  return {
    name,
    addresses,
    routes: withoutRepetition(list(options.route).flatMap(checkRoute)),
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

function checkName(name: string, { most, unit, count, forbidden, said }: NameRule): void {
  const length = count(name);
  if (length > most) {
    throw new RangeError(`Cannot open device "${name}": its name has ${length} ${unit}: at most ${most}`);
  }
  if (forbidden.test(name)) throw new TypeError(`Cannot open device ${JSON.stringify(name)}: ${said}`);
  if (/%(?!d)|%.*%/.test(name)) {
    throw new TypeError(`Cannot open device "${name}": "%" stands only in one "%d", for a number`);
  }
}

function checkRoute(option: string | RouteOptions): CheckedRoute[] {
  const route = typeof option === "string" ? parseRoute(option) : option;
  checkNames("route through a device", route, ROUTE_OPTIONS);
  const { metric, table } = route;
  const via = route.via === undefined ? undefined : parseAddress(route.via);
  if (metric !== undefined) checkNumber(metric, 0, MAX_U32, "metric");
  if (table !== undefined) checkNumber(table, 1, MAX_U32, "table");
  const isDefault = route.to === "default" && via === undefined && metric === undefined &&
    table === undefined;
  const tos = isDefault
    ? [EVERYWHERE[4], EVERYWHERE[6]]
    : [route.to === "default" ? EVERYWHERE[via?.family ?? 4] : parsePrefix(route.to, "route")];
  return tos.map((to) => {
    if (via !== undefined && via.family !== to.address.family) {
      throw new TypeError(`Cannot route ${route.to} via ${route.via}: they are IPv4 and IPv6`);
    }
    return { to, via, metric, table, ...(isDefault ? { isDefault } : {}) };
  });
}

/** Leaves out a family of `default` for which there is a route of its own. */
function withoutRepetition(routes: CheckedRoute[]): CheckedRoute[] {
  const isSame = (one: CheckedRoute, other: CheckedRoute) =>
    one !== other && one.to.length === 0 && one.to.address.family === other.to.address.family;
  return routes.filter((one) => one.isDefault !== true || !routes.some((other) => isSame(other, one)));
}

/** The two halves of everywhere: routes to them come before the default route that is there, which stays as it is. */
export function halvesOf({ address: { family, bytes } }: Prefix): Prefix[] {
  return [0, 0x80].map((first) => {
    const half = new Uint8Array(bytes.length);
    half[0] = first;
    return new Prefix({ family, bytes: half }, 1);
  });
}

function checkRule(rule: RuleOptions): CheckedRule {
  checkNames("add a rule", rule, RULE_OPTIONS);
  const from = rule.from === undefined ? undefined : parsePrefix(rule.from, "rule");
  const to = rule.to === undefined ? undefined : parsePrefix(rule.to, "rule");
  const family = (from ?? to)?.address.family ?? rule.family ?? 4;
  if (
    to !== undefined && to.address.family !== family || rule.family !== undefined && rule.family !== family
  ) {
    throw new TypeError(`Cannot add the rule: its prefixes and family mix IPv4 and IPv6`);
  }
  checkNumber(rule.table, 1, MAX_U32, "table");
  if (rule.mark !== undefined) checkNumber(rule.mark, 0, MAX_U32, "mark");
  if (rule.priority !== undefined) checkNumber(rule.priority, 0, MAX_U32, "priority");
  return { table: rule.table, family, from, to, mark: rule.mark, priority: rule.priority };
}

function parsePrefix(text: string, what: string): Prefix {
  if (typeof text === "string" && !text.includes("/")) {
    throw new SyntaxError(
      `Cannot parse ${what} "${text}": it has no prefix length: write ${text}/${
        text.includes(":") ? 64 : 24
      }`,
    );
  }
  return parseCidr(text);
}

function checkNumber(value: number, least: number, most: number, what: string): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`Cannot use ${what} ${value}: it is not a whole number from ${least} to ${most}`);
  }
}

function list<T>(value: T | T[] | undefined): T[] {
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}
