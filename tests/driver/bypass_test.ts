/** Host routes of a tunnel's bypass: their addresses and lifetime. */

import assert from "node:assert/strict";
import { Bypass, coveringRoutes, type HostRoutes } from "../../driver/bypass.ts";
import { checkDeviceOptions, type DeviceOptions } from "../../driver/options.ts";
import { type Address, formatAddress, parseAddress } from "../../lib/wire/address.ts";

const MAIN_TABLE = 254;

/** A system that records host routes as text. */
class ListedRoutes implements HostRoutes {
  readonly descriptor = undefined;
  readonly rescueData: Uint8Array[] = [];
  readonly routes = new Set<string>();
  servers: string[] = [];
  refreshed = 0;
  fails = false;

  add(address: Address, tables: readonly number[], interfaceName: string | undefined) {
    if (this.fails) throw new Error("Cannot add it");
    const text = `${formatAddress(address)} ${tables.join()}${
      interfaceName === undefined ? "" : ` ${interfaceName}`
    }`;
    this.routes.add(text);
    return { refresh: () => void this.refreshed++, remove: () => void this.routes.delete(text) };
  }

  nameServers(): Address[] {
    return this.servers.map(parseAddress);
  }

  drain(): boolean {
    return true;
  }

  close(): void {
    assert.equal(this.routes.size, 0, "every host route is removed before");
  }
}

function open(options: DeviceOptions): { bypass: Bypass; system: ListedRoutes } {
  const system = new ListedRoutes();
  return { system, bypass: new Bypass(system, coveringRoutes(checkDeviceOptions(options), MAIN_TABLE)) };
}

Deno.test("Bypass.keep() adds host routes for addresses covered by the tunnel's routes or addresses, in their tables", () => {
  const { bypass, system } = open({
    address: "10.9.0.2/24",
    route: ["198.51.100.0/25", "0.0.0.0/0 table 7", "2001:db8::/33"],
  });
  using _bypass = bypass;
  for (
    const address of ["10.9.0.1", "198.51.100.127", "198.51.100.128", "2001:db8:7fff::1", "2001:db8:8000::1"]
  ) bypass.keep(parseAddress(address));
  bypass.keep(parseAddress("192.0.2.1"), "eth0");
  assert.deepEqual([...system.routes], [
    "10.9.0.1 254,7",
    "198.51.100.127 254,7",
    "198.51.100.128 7",
    "2001:db8:7fff::1 254",
    "192.0.2.1 7 eth0",
  ]);
});

Deno.test("Bypass.keep() treats an IPv4-mapped address as IPv4, and each address once", () => {
  const { bypass, system } = open({ route: "0.0.0.0/0" });
  using _bypass = bypass;
  bypass.keep(parseAddress("::ffff:192.0.2.1"));
  bypass.keep(parseAddress("192.0.2.1"));
  assert.deepEqual([...system.routes], ["192.0.2.1 254"]);
});

Deno.test("Bypass.keep() removes the least recently used address beyond 64", () => {
  const { bypass, system } = open({ route: "default" });
  using _bypass = bypass;
  for (let i = 1; i <= 64; i++) bypass.keep(parseAddress(`192.0.2.${i}`));
  bypass.keep(parseAddress("192.0.2.1"));
  bypass.keep(parseAddress("2001:db8::1"));
  assert.equal(system.routes.size, 64);
  assert.ok(system.routes.has("192.0.2.1 254"));
  assert.ok(!system.routes.has("192.0.2.2 254"));
  assert.ok(system.routes.has("2001:db8::1 254"));
});

Deno.test("A default route covers the far ends of other tunnels while it exists; a more specific route only its own", () => {
  const lab = open({ address: "10.8.0.2/24" });
  lab.bypass.keep(parseAddress("192.0.2.6"));
  assert.deepEqual([...lab.system.routes], []);
  const narrow = open({ route: "192.0.2.0/24" });
  assert.deepEqual([...lab.system.routes], []);
  for (const route of [["default"], ["0.0.0.0/1", "128.0.0.0/1"]]) {
    const all = open({ route });
    assert.deepEqual([...lab.system.routes], ["192.0.2.6 254"], route.join());
    all.bypass.close();
    assert.deepEqual([...lab.system.routes], []);
  }
  narrow.bypass.close();
  lab.bypass.close();
});

Deno.test("Bypass.lookUp() bypasses an open tunnel for the DNS servers while it runs", async () => {
  const { bypass, system } = open({ address: "10.9.0.2/24", route: ["default", "198.51.100.0/24"] });
  using _bypass = bypass;
  system.servers = ["127.0.0.53", "::1", "192.0.2.53", "10.9.0.1", "198.51.100.53", "2001:db8::53"];
  const seen = () => Promise.resolve([...system.routes]);
  assert.deepEqual(await bypass.lookUp(seen), [], "no route of a tunnel stands yet");
  bypass.opened();
  assert.deepEqual(await bypass.lookUp(seen), ["192.0.2.53 254", "2001:db8::53 254"]);
  assert.deepEqual([...system.routes], []);
  const first = Promise.withResolvers<void>();
  const slow = bypass.lookUp(() => first.promise);
  await assert.rejects(bypass.lookUp(() => Promise.reject(new Error("no such name"))), /no such name/);
  assert.equal(system.routes.size, 2, "another look-up still needs them");
  bypass.keep(parseAddress("192.0.2.53"));
  first.resolve();
  await slow;
  assert.deepEqual([...system.routes], ["192.0.2.53 254"], "a far end of this address keeps its route");
});

Deno.test("Bypass.lookUp() bypasses two halves of a default route", async () => {
  const { bypass, system } = open({ route: ["0.0.0.0/1", "128.0.0.0/1", "198.51.100.0/24"] });
  using _bypass = bypass;
  system.servers = ["192.0.2.53", "8.8.8.8", "198.51.100.53"];
  bypass.opened();
  assert.deepEqual(await bypass.lookUp(() => Promise.resolve([...system.routes])), [
    "192.0.2.53 254",
    "8.8.8.8 254",
  ]);
});

Deno.test("Bypass adds no host routes for addresses or look-ups after close()", async () => {
  const open7 = open({ route: "default table 7" });
  using _other = open7.bypass;
  open7.bypass.opened();
  const { bypass, system } = open({ route: "198.51.100.0/24" });
  system.servers = ["192.0.2.53"];
  bypass.close();
  bypass.keep(parseAddress("192.0.2.1"));
  assert.deepEqual(await bypass.lookUp(() => Promise.resolve([...system.routes])), []);
  assert.deepEqual([...system.routes], []);
});

Deno.test("Bypass.drain() updates every host route after a change of the system's routes", () => {
  const { bypass, system } = open({ route: "default" });
  using _bypass = bypass;
  bypass.keep(parseAddress("192.0.2.1"));
  bypass.keep(parseAddress("192.0.2.2"));
  bypass.drain();
  assert.equal(system.refreshed, 2);
});

Deno.test("Bypass.keep() warns and continues when a host route cannot be added", () => {
  const { bypass, system } = open({ route: "default" });
  using _bypass = bypass;
  system.fails = true;
  const { warn } = console;
  const said: string[] = [];
  console.warn = (text: string) => said.push(text);
  try {
    bypass.keep(parseAddress("192.0.2.1"));
  } finally {
    console.warn = warn;
  }
  assert.deepEqual(said, ["warren: Cannot add it: the tunnel's own packets may go into it"]);
});
