/** Output of a running script: greeting, counters, summary. */

import assert from "node:assert/strict";
import { mock } from "node:test";
import { MemoryDevice } from "../../../driver/memory.ts";
import { Counters } from "../../../lib/core/stats.ts";
import { describe, formatRates, formatSummary, greet } from "../../../runtime/script/progress.ts";
import { checkTunnelOptions } from "../../../runtime/tunnel/tunnel_options.ts";
import type { Tunnel } from "../../../runtime/tunnel/tunnel.ts";

Deno.test("describe() names all that would be opened", () => {
  assert.equal(describe(checkTunnelOptions({})), "device tun%d");
  assert.equal(
    describe(checkTunnelOptions({
      name: "home",
      address: ["10.9.0.1/24", "fd00::1/64"],
      route: "10.0.0.0/8",
      mtu: 1400,
      linux: { txQueueLength: 20 },
      far: "udp://192.0.2.1:4500",
    })),
    "device home, address 10.9.0.1/24, address fd00::1/64, route 10.0.0.0/8, MTU 1400, " +
      "queue length 20, far end udp://192.0.2.1:4500",
  );
  const [device] = MemoryDevice.pair();
  assert.equal(
    describe(checkTunnelOptions({ device, far: () => device })),
    "device memory, far end opened by the script",
  );
});

function greeting(address: string[]): string[] {
  const printed = mock.method(console, "error", () => {});
  try {
    const device = { name: "tun7", mtu: 1400 };
    greet(
      { device, far: { name: "udp 192.0.2.1:4500" } } as unknown as Tunnel,
      checkTunnelOptions({ address }),
    );
    return printed.mock.calls.map(({ arguments: [text] }) => text as unknown as string);
  } finally {
    printed.mock.restore();
  }
}

Deno.test("greet() names the device, its addresses, its networks and a host to ping", () => {
  assert.deepEqual(greeting(["10.9.0.1/24", "fd00::5/64"]), [
    "tun7 is open: 10.9.0.1/24, fd00::5/64, MTU 1400, to udp 192.0.2.1:4500. Press Ctrl-C to stop.",
    "The script receives packets to 10.9.0.0/24 and fd00::/64. Try: ping 10.9.0.2",
  ]);
  assert.match(
    greeting(["10.9.3.7/20"])[1]!,
    /The script receives packets to 10\.9\.0\.0\/20\. Try: ping 10\.9\.0\.1$/,
  );
  assert.match(greeting(["fd00::1/64"])[1]!, /Try: ping fd00::2$/);
});

Deno.test("greet() suggests nothing for a network without other hosts", () => {
  for (const address of [[], ["10.9.0.1/32"], ["10.9.0.1/31"], ["fd00::1/128"]]) {
    assert.equal(greeting(address).length, 1);
  }
});

Deno.test("formatSummary() lists packets in each direction, drops by reason, and those of a far end", () => {
  const counters = new Counters();
  assert.equal(
    formatSummary(counters.snapshot(0), false),
    "from this machine no packets; to this machine no packets; dropped 0",
  );
  Object.assign(counters.outbound, { packetsIn: 5, bytesIn: 420, packetsOut: 1, bytesOut: 84 });
  Object.assign(counters.inbound, { packetsIn: 2, bytesIn: 168, packetsOut: 3, bytesOut: 252 });
  counters.malformed = 2;
  for (const reason of ["handler", "handler", "pool empty"]) counters.drop(reason);
  assert.equal(
    formatSummary(counters.snapshot(0), true),
    "from this machine 5 packets (420 bytes); to this machine 3 packets (252 bytes); to the far end 1 packet (84 bytes); " +
      "from the far end 2 packets (168 bytes); dropped 3 (handler 2, pool empty 1); malformed 2",
  );
});

Deno.test("formatRates() shows growth since a second ago", () => {
  const counters = new Counters();
  Object.assign(counters.outbound, { packetsIn: 5 });
  const before = counters.snapshot(0);
  Object.assign(counters.outbound, { packetsIn: 12 });
  Object.assign(counters.inbound, { packetsOut: 3 });
  assert.equal(formatRates(counters.snapshot(0), before), "outbound 12 (7/s), inbound 3 (3/s), dropped 0");
});
