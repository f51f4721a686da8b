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
