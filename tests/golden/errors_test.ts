/**
 * Lists the error of each wrong argument of the toolbox in `errors.list`, so that all messages can be read in one place. `deno test -A tests/golden -- --update` writes it anew.
 */

import { deepEqual, equal } from "node:assert/strict";
import { udp, websocket } from "@warren/tunnel";
import { parseCidr, parseIpv4, parseIpv6 } from "@warren/tunnel/address";
import { Capture } from "@warren/tunnel/capture";
import { PacketBatch, PacketPool, PacketQueue } from "@warren/tunnel/core";
import { Count } from "@warren/tunnel/count";
import { BlockList, DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { compileFilter } from "@warren/tunnel/filter";
import { Firewall } from "@warren/tunnel/firewall";
import { FlowTable } from "@warren/tunnel/flow_table";
import { fragment } from "@warren/tunnel/fragment";
import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { Impairment } from "@warren/tunnel/impair";
import { MemoryDevice } from "@warren/tunnel/memory";
import { Meter } from "@warren/tunnel/meter";
import { Mirror } from "@warren/tunnel/mirror";
import { mssClamp } from "@warren/tunnel/mss_clamp";
import { Napt44, Nptv6, StaticNat } from "@warren/tunnel/nat";
import { Nat64 } from "@warren/tunnel/nat64";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { Reassemble } from "@warren/tunnel/reassemble";
import { route } from "@warren/tunnel/route";
import { RouteTable } from "@warren/tunnel/route_table";
import { Fifo, FqCodel, Priority, Shaper, TokenBucket } from "@warren/tunnel/shape";
import { ttl } from "@warren/tunnel/ttl";
import { Sealed, type SealedOptions } from "@warren/tunnel/vpn";
import { checkDeviceOptions, parseRoute } from "../../driver/options.ts";
import { parseFarUrl } from "../../runtime/transport/far_url.ts";
import { fakeCryptography } from "../kit/fake_cryptography.ts";

const KEY = "NUTMQBP9KbXuYWy9Hzt3Bwp5ZsbYcQ2w4xlF/fSMC7w=";
const sealed = (options: SealedOptions): Sealed => new Sealed(fakeCryptography(1), () => 0, options);

/** Constructor under test, with its needed options. */
interface Made {
  readonly make: (options: never) => unknown;
  readonly needed?: Record<string, unknown>;
  /** Its options, where no error lists them. */
  readonly names?: readonly string[];
}

const OPTIONS: Record<string, Made> = {
  "BlockList": { make: (options) => new BlockList([], options) },
  "Capture": { make: (options) => new Capture({ write: () => {} }, options) },
  "Count": { make: (options) => new Count(options) },
  "DnsResolver": { make: (options) => new DnsResolver(options), needed: { address: "10.9.0.53" } },
  "DnsResolver, cache": { make: (cache) => new DnsResolver({ address: "10.9.0.53", cache }) },
  "FakeIp": { make: (options) => new FakeIp(options) },
  "device": {
    make: (options) => checkDeviceOptions(options, "linux"),
    names: ["name", "address", "route", "rule", "up", "mtu", "linux"],
  },
  "device, a route": { make: (route) => checkDeviceOptions({ route: [route] }, "linux"), needed: { to: "10.0.0.0/8" } },
  "device, a rule": { make: (rule) => checkDeviceOptions({ rule: [rule] }, "linux"), needed: { table: 100 } },
  "device, linux": { make: (linux) => checkDeviceOptions({ linux }, "linux") },
  "device, windows": { make: (windows) => checkDeviceOptions({ windows }, "windows") },
  "Fifo": { make: (options) => new Fifo(options) },
  "Firewall": { make: (options) => new Firewall(options) },
  "Firewall, a rule": { make: (rule) => new Firewall({ rules: [rule] }), needed: { verdict: "allow" } },
  "FlowTable": { make: (options) => new FlowTable(options), needed: { timeouts: [1000] } },
  "FqCodel": { make: (options) => new FqCodel(options) },
  "fragment(1400)": { make: (options) => fragment(1400, options) },
  "IcmpErrors": { make: (options) => new IcmpErrors(options) },
  "Impairment": { make: (options) => new Impairment(options) },
  "Impairment, a direction": { make: (outbound) => new Impairment({ outbound }) },
  "MemoryDevice.pair()": { make: (options) => MemoryDevice.pair(options) },
  "Meter": { make: (options) => new Meter(options) },
  "Mirror": { make: (options) => new Mirror(MemoryDevice.pair()[0], options) },
  "mssClamp()": { make: (options) => mssClamp(options) },
  "Napt44": { make: (options) => new Napt44(options), needed: { outside: "192.0.2.1" } },
  "Napt44, a forward": {
    make: (forward) => new Napt44({ outside: "192.0.2.1", forwards: [forward] }),
    needed: { protocol: "tcp", port: 80, to: "10.9.0.1:80" },
  },
  "Napt44, timeouts": { make: (timeouts) => new Napt44({ outside: "192.0.2.1", timeouts }) },
  "Nat64": { make: (options) => new Nat64(options), needed: { outside: "192.0.2.1" } },
  "Nptv6": { make: (options) => new Nptv6(options), needed: { inside: "fd09::/48", outside: "2001:db8::/48" } },
  "PacketBatch": { make: (options) => new PacketBatch(options), names: ["packets", "bytes"] },
  "PacketPool": { make: (options) => new PacketPool(options), names: ["small", "large"] },
  "PacketQueue": { make: (options) => new PacketQueue(options), needed: { packets: 4 }, names: ["packets", "bytes"] },
  "PathMtu": { make: (options) => new PathMtu(options) },
  "Priority": { make: (options) => new Priority(options), needed: { bands: [new Fifo(), new Fifo()], classify: () => 0 } },
  "Reassemble": { make: (options) => new Reassemble(options) },
  "route()": { make: (options) => route([], options) },
  "route(), a policy": { make: (policy) => route([policy]), needed: { to: 1 } },
  "RouteTable": { make: (options) => new RouteTable(options) },
  "Sealed": { make: (options) => sealed(options), needed: { role: "listen", key: KEY } },
  "Sealed, a peer": {
    make: (peer) => sealed({ role: "listen", peers: [peer] } as never),
    needed: { name: "ann", allowed: ["10.9.0.2"], key: KEY },
  },
  "Shaper": { make: (options) => new Shaper(options) },
  "Shaper, a direction": { make: (outbound) => new Shaper({ outbound }), needed: { rateBitsPerSecond: 1e6 } },
  "StaticNat": { make: (options) => new StaticNat(options), needed: { rules: [] } },
  "TokenBucket": {
    make: (options) => new TokenBucket(options),
    needed: { rateBitsPerSecond: 1e6 },
    names: ["rateBitsPerSecond", "burst"],
  },
  "ttl()": { make: (options) => ttl(options) },
  "udp()": { make: (options) => udp(options), needed: { peer: "192.0.2.1:4500" } },
  "websocket()": { make: (options) => websocket(options), needed: { url: "ws://192.0.2.1:8080/" } },
};

/** Values that few options take, and how the list shows them. */
const WRONG: readonly (readonly [shown: string, value: unknown])[] = [
  ["-1", -1],
  ["1.5", 1.5],
  ["NaN", NaN],
  ['"wrong"', "wrong"],
  ["{}", {}],
  ["null", null],
];

/** Texts that do not parse. */
const TEXTS: Record<string, [parse: (text: string) => unknown, texts: readonly string[]]> = {
  "parseIpv4()": [parseIpv4, ["", "1.2.3", "1.2.3.256", "01.2.3.4"]],
  "parseIpv6()": [parseIpv6, ["", "1::2::3", "fd09:::1", "12345::"]],
  "parseCidr()": [parseCidr, ["10.0.0.0", "10.0.0.0/33", "fd09::/129", "10.0.0.0/x"]],
  "parseRoute()": [parseRoute, ["", "10.0.0.0", "10.0.0.0/8 by 10.9.0.1", "10.0.0.0/8 via", "10.0.0.0/8 metric -1"]],
  "compileFilter()": [compileFilter, ["tcp port", "port 70000", "host 1.2.3.256", "(udp", "vlan 4"]],
  "parseFarUrl()": [parseFarUrl, [
    "10.0.0.1:4500",
    "udp://192.0.2.1",
    "udp://192.0.2.1:70000",
    "udp://192.0.2.1:4500?mtu=0",
    "udp://192.0.2.1:4500?payload=some",
    "udp://192.0.2.1:4500?liste",
    "ws://",
    "tun:",
    "quic://192.0.2.1:4500",
  ]],
};

/** The error of a call on one line; `undefined`: there is none. */
function errorOf(call: () => unknown): string | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    return String(error).replaceAll("\n", " | ");
  }
}

/** The names of a part's options, which its error about an unknown one lists. */
function namesOf({ make, needed, names }: Made): readonly string[] {
  if (names !== undefined) return names;
  const error = errorOf(() => make({ ...needed, unknown: 1 } as never)) ?? "";
  const list = /there is no (?:option|field) "(?:\w+\.)?unknown": (?:options|fields) are (.*)$/.exec(error)?.[1];
  if (list === undefined) throw new Error(`Cannot list options: ${error}`);
  return list.split(", ");
}

/** The errors of one option, each with the values that give it, and the values that are taken. */
function listOption({ make, needed }: Made, name: string): string[] {
  const lines = new Map<string, { error: string; values: string[] }>();
  for (const [shown, value] of WRONG) {
    const error = errorOf(() => make({ ...needed, [name]: value } as never)) ?? "taken";
    const rule = error.replace(/, got .*$/, "");
    const line = lines.get(rule);
    if (line === undefined) lines.set(rule, { error, values: [shown] });
    else line.values.push(shown);
  }
  return Array.from(lines.values(), ({ error, values }) => `${name} ${values.join(", ")}: ${error}`);
}

/** One block for each part. */
function listErrors(): string {
  const lines: string[] = [];
  for (const [part, made] of Object.entries(OPTIONS)) {
    lines.push(`# ${part}`, ...namesOf(made).flatMap((name) => listOption(made, name)), "");
  }
  for (const [what, [parse, texts]] of Object.entries(TEXTS)) {
    lines.push(`# ${what}`, ...texts.map((text) => `${JSON.stringify(text)}: ${errorOf(() => parse(text)) ?? "taken"}`), "");
  }
  return lines.join("\n");
}

const FILE = new URL("errors.list", import.meta.url);

Deno.test("Each wrong argument is refused with the rule and the value", () => {
  const list = listErrors();
  if (Deno.args.includes("--update")) Deno.writeTextFileSync(FILE, list);
  equal(list, Deno.readTextFileSync(FILE));
});

Deno.test("Each error is of our own, and shows no object by its default text", () => {
  const errors = listErrors().split("\n").filter((line) => / (Type|Range|Syntax)Error: /.test(line));
  const others = errors.filter((line) => !/Error: Cannot (?!read prop|convert )/.test(line) || line.includes("[object"));
  deepEqual(others, []);
});
