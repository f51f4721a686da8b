/** Errors for mistyped options: types are not checked where a script runs. */

import { throws } from "node:assert/strict";
import { udp, websocket } from "@warren/tunnel";
import { Capture } from "@warren/tunnel/capture";
import { openCaptureFile } from "@warren/tunnel/capture_sink";
import { Count } from "@warren/tunnel/count";
import { BlockList, DnsResolver, FakeIp } from "@warren/tunnel/dns";
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
import { Fifo, FqCodel, Priority, Shaper } from "@warren/tunnel/shape";
import { ttl } from "@warren/tunnel/ttl";
import { checkDeviceOptions } from "../../../driver/options.ts";

const MAKE: Record<string, (options: never) => unknown> = {
  "Napt44": (options) => new Napt44(options),
  "a timeout of Napt44": (timeouts) => new Napt44({ outside: "192.0.2.1", timeouts }),
  "a forwarded port": (forward) => new Napt44({ outside: "192.0.2.1", forwards: [forward] }),
  "StaticNat": (options) => new StaticNat(options),
  "a rule of StaticNat": (rule) => new StaticNat({ rules: [rule] }),
  "Nptv6": (options) => new Nptv6(options),
  "Nat64": (options) => new Nat64(options),
  "Firewall": (options) => new Firewall(options),
  "route()": (options) => route([], options),
  "a policy": (policy) => route([policy]),
  "Shaper": (options) => new Shaper(options),
  "a direction of Shaper": (outbound) => new Shaper({ outbound }),
  "Impairment": (options) => new Impairment(options),
  "Impairment.set()": (directions) => new Impairment().set(directions),
  "a direction of Impairment": (outbound) => new Impairment({ outbound }),
  "a bad road of Impairment": (gilbertElliott) => new Impairment({ outbound: { gilbertElliott } }),
  "Shaper.set()": (rates) => new Shaper({ outbound: { rateBitsPerSecond: 1e6 } }).set(rates),
  "a rate of IcmpErrors": (perDestination) => new IcmpErrors({ perDestination }),
  "DnsResolver": (options) => new DnsResolver(options),
  "Meter": (options) => new Meter(options),
  "Capture": (options) => new Capture({ write: () => {} }, options),
  "ttl()": (options) => ttl(options),
  "fragment()": (options) => fragment(1400, options),
  "mssClamp()": (options) => mssClamp(options),
  "Reassemble": (options) => new Reassemble(options),
  "PathMtu": (options) => new PathMtu(options),
  "IcmpErrors": (options) => new IcmpErrors(options),
  "Count": (options) => new Count(options),
  "Mirror": (options) => new Mirror(MemoryDevice.pair()[0], options),
  "Fifo": (options) => new Fifo(options),
  "FqCodel": (options) => new FqCodel(options),
  "Priority": (options) => new Priority(options),
  "RouteTable": (options) => new RouteTable(options),
  "FlowTable": (options) => new FlowTable(options),
  "BlockList": (options) => new BlockList([], options),
  "FakeIp": (options) => new FakeIp(options),
  "a cache of DnsResolver": (cache) => new DnsResolver({ address: "10.9.0.53", cache }),
  "udp()": (options) => udp(options),
  "websocket()": (options) => websocket(options),
  "openCaptureFile()": (options) => openCaptureFile("never.pcapng", options),
  "MemoryDevice.pair()": (options) => MemoryDevice.pair(options),
};

for (const [what, make] of Object.entries(MAKE)) {
  Deno.test(`${what} rejects an unknown option, and lists the known ones`, () => {
    throws(
      () => make({ outsde: 1 } as never),
      /^TypeError: Cannot .*: there is no option "(\w+\.)?outsde": options are .*$/,
    );
    throws(() => make(7 as never), /^TypeError: Cannot .*: \w+ must be an object, got 7$/);
  });
}

Deno.test("Impairment rejects an unknown option of loss", () => {
  const loss = { probability: 0.1, corelation: 0.5 };
  throws(
    () => new Impairment({ outbound: { loss } }),
    /^TypeError: Cannot .*: there is no option "loss.corelation"/,
  );
});

for (const what of ["Napt44", "a forwarded port", "StaticNat", "Nptv6", "Nat64", "a policy", "DnsResolver"]) {
  Deno.test(`${what} reports a missing option`, () => {
    throws(() => MAKE[what]!({} as never), /^TypeError: Cannot .*: \w+ is missing$/);
  });
}

Deno.test("An iterable of names must not be a Map or an array of anything else, and may be a Set", () => {
  for (const only of [new Map([["a.example", 1]]), { a: 1 }, ["a.example", 7]]) {
    throws(
      () => new FakeIp({ only: only as unknown as string[] }),
      /^TypeError: Cannot .*: only must be a string or an iterable of strings, got an (object|array)$/,
    );
  }
  new FakeIp({ only: new Set(["a.example"]) });
});

Deno.test("DnsResolver takes records as lines and objects, and says so", () => {
  for (const records of [{ "a.example": "192.0.2.1" }, new Map([["a.example", "192.0.2.1"]]), [7]]) {
    throws(
      () => new DnsResolver({ address: "10.9.0.53", records: records as unknown as string[] }),
      /^TypeError: Cannot resolve names: records must be a line NAME \[TTL\] TYPE DATA, or an iterable of lines and /,
    );
  }
});

Deno.test("An array with gaps, whose elements some methods skip, is no list of options", () => {
  // deno-lint-ignore no-sparse-arrays
  const rules = [{ verdict: "allow" }, , { verdict: "drop" }];
  throws(() => new Firewall({ rules } as never), /rules must be an array, got an array with gaps$/);
  // deno-lint-ignore no-sparse-arrays
  const names = ["a.example", , "b.example"];
  throws(() => new FakeIp({ only: names } as never), /only must be .* strings, got an array with gaps$/);
  throws(
    () => new Napt44({ outside: new Array(1e9) as string[] }),
    /outside must be .*, got an array with gaps$/,
  );
});

Deno.test("Gaps in the lists of a firewall rule, and in routes and rules of a device, are refused like undefined", () => {
  const gap = (value: unknown): unknown[] => Object.assign(new Array(2), { 1: value });
  const lists = {
    protocol: "tcp",
    src: "10.0.0.0/8",
    dst: "10.0.0.0/8",
    srcPort: 80,
    dstPort: 80,
    state: "new",
  };
  for (const [name, value] of Object.entries(lists)) {
    const rule = { verdict: "allow", protocol: "tcp", [name]: gap(value) };
    throws(
      () => new Firewall({ rules: [rule as never] }),
      new RegExp(`^TypeError: .*: ${name} must be .*, got undefined$`),
    );
  }
  const echo = { verdict: "allow", protocol: "icmp", icmpType: gap(8) };
  throws(
    () => new Firewall({ rules: [echo as never] }),
    /^TypeError: .*: icmpType must be .*, got undefined$/,
  );
  throws(
    () => checkDeviceOptions({ route: gap("10.0.0.0/8") } as never, "linux"),
    /^TypeError: Cannot open a device: route must be a string or an object, got undefined$/,
  );
  throws(
    () => checkDeviceOptions({ rule: gap({ table: 5 }) } as never, "linux"),
    /^TypeError: Cannot open a device: rule must be an object, got undefined$/,
  );
});

Deno.test("Lists of numbers have no other elements", () => {
  for (const wrong of [["5"], [undefined], [{}], [Symbol("five")]] as unknown as number[][]) {
    throws(() => new FlowTable({ timeouts: wrong }), /timeouts must be an array of numbers, got an array$/);
    throws(
      () => new FlowTable({ timeouts: [5], evictionPriorities: wrong }),
      /evictionPriorities must be an array of numbers, got an array$/,
    );
    throws(
      () => new PathMtu({ hashKey: wrong as never }),
      /hashKey must be an array of numbers, got an array$/,
    );
  }
});

Deno.test("route() and RouteTable state the rule for arguments that are no text, list or prefix", () => {
  for (const protocol of [["tcp"], [Symbol("tcp")], { __proto__: null }, "toString", "__proto__"]) {
    throws(() => route([{ to: 1, protocol } as never]), /protocol must be tcp, udp, icmp or a number, got /);
  }
  throws(
    () => route("10.0.0.0/8" as never),
    /^TypeError: Cannot route: policies must be an array, got "10.0.0.0\/8"$/,
  );
  throws(
    () => new RouteTable().set(7 as never, 1),
    /^TypeError: Cannot find a prefix: prefix must be a string, got 7$/,
  );
});

Deno.test("Lists of names state the rule for elements that are no text", () => {
  throws(
    () => new BlockList([7 as never]),
    /^TypeError: Cannot add a name to a list: name must be a string, got 7$/,
  );
  for (const wrong of [[7], [undefined], [{}]]) {
    throws(
      () => new DnsResolver({ address: "10.9.0.53", forwardSpecial: wrong as never }),
      /forwardSpecial must be true, a name or an array of names, got an array$/,
    );
  }
});

Deno.test("Errors of a record name it, and state the rule for its data", () => {
  const add = (record: unknown) => () =>
    new DnsResolver({ address: "10.9.0.53", records: [record as never] });
  for (const [type, data] of [["A", {}], ["AAAA", undefined], ["CNAME", 7], ["PTR", [Symbol("x")]]]) {
    throws(
      add({ name: "a.example", type, data }),
      /^TypeError: Cannot add \w+ record of "a.example": data must be a string, got /,
    );
  }
  for (
    const record of [{ type: "MX" }, { type: "SRV", data: {} }, { type: "X" }, {
      type: "A",
      class: 5,
      data: "10.0.0.1",
    }]
  ) {
    throws(
      add({ name: "a.example", ...record }),
      /^TypeError: Cannot encode \w+ record of "a.example": its type, class or data is invalid$/,
    );
  }
});
