/** rtnetlink against the kernel, in network namespaces; `ip` shows the actual state. */

import { fileURLToPath } from "node:url";
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { link, type Namespace, openNamespace, runModule, systemTest } from "../kit/system.ts";

const SCENARIOS = new URL("./netlink_scenarios.ts", import.meta.url);
const NEEDS = { programs: ["ip", "ping"] };

interface IpLink {
  ifname: string;
  mtu: number;
  txqlen: number;
  flags: string[];
}
interface IpAddress {
  addr_info: { local: string; prefixlen: number; family: string; tentative?: boolean; nodad?: boolean }[];
}
type Fields = Record<string, unknown>;

function run<Result>(namespace: Namespace, scenario: string, ...args: string[]): Promise<Result> {
  return runModule<Result>(namespace, SCENARIOS, [scenario, ...args]);
}

/** Opens a namespace with a TUN device `d0` that no program has open. */
async function openWithDevice(): Promise<Namespace> {
  const namespace = await openNamespace();
  await namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  return namespace;
}

async function ipAddresses(namespace: Namespace): Promise<string[]> {
  const [{ addr_info }] = await namespace.ip<IpAddress>("addr", "show", "dev", "d0") as [IpAddress];
  return addr_info.map(({ local, prefixlen }) => `${local}/${prefixlen}`);
}

/** Picks fields of entries by name; missing ones are left out. */
function pick(entries: Fields[], ...names: string[]): Fields[] {
  return entries.map((entry) =>
    Object.fromEntries(names.filter((name) => name in entry).map((name) => [name, entry[name]]))
  );
}

systemTest("Netlink.link() and link() return what ip shows of a link", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const { byName, byIndex, lo, absent } = await run<Record<string, Fields>>(namespace, "link");
  const [d0, loopback] = await Promise.all(["d0", "lo"].map(async (name) => {
    const [entry] = await namespace.ip<Fields>("link", "show", "dev", name);
    return entry!;
  }));
  strictEqual(byName!.index, d0!.ifindex);
  strictEqual(byName!.mtu, d0!.mtu);
  strictEqual(byName!.txQueueLength, d0!.txqlen);
  deepStrictEqual([byName!.kind, byName!.persistent, byName!.up, byName!.running], [
    "tun",
    true,
    false,
    false,
  ]);
  deepStrictEqual(byIndex, byName);
  strictEqual(lo!.mtu, loopback!.mtu);
  deepStrictEqual([lo!.name, lo!.up, lo!.running, lo!.kind], ["lo", true, true, undefined]);
  strictEqual(absent, true);
});

systemTest(
  "setLink() changes a link and its undo restores it; errors hold the kernel's message",
  NEEDS,
  async () => {
    await using namespace = await openWithDevice();
    const settings = async (): Promise<Fields[]> =>
      pick(await namespace.ip<Fields>("link", "show", "dev", "d0"), "mtu", "txqlen", "flags");
    const before = await settings();
    const seen = await run<Fields & { undo: string }>(namespace, "setLink");
    const [changed] = await namespace.ip<IpLink>("link", "show", "dev", "d0");
    deepStrictEqual([changed!.mtu, changed!.txqlen, changed!.flags.includes("UP")], [1380, 5000, true]);
    strictEqual(
      seen.tooLong,
      "DriverError: Cannot set d0 to MTU 1073741824: EINVAL (22): mtu greater than device maximum",
    );
    strictEqual(seen.absent, "NotFound: Cannot set d9 to MTU 1400: ENODEV (19)");
    match(seen.zero as string, /EINVAL \(22\)/);
    deepStrictEqual(await run(namespace, "replay", seen.undo), { first: [], second: [] });
    deepStrictEqual(await settings(), before);
  },
);

systemTest("deleteLink() removes a device, which is then not found", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const { gone, again, addresses, routes } = await run<Fields>(namespace, "deleteLink");
  strictEqual(gone, true);
  match(again as string, /^NotFound: Cannot remove d0: ENODEV \(19\)|^DriverError: Cannot remove d0: EINVAL/);
  deepStrictEqual([addresses, routes], [[], []]);
  const links = await namespace.ip<IpLink>("link", "show");
  deepStrictEqual(links.filter(({ ifname }) => ifname === "d0"), []);
});

systemTest("addAddress() and removeAddress() handle several addresses of both families", NEEDS, async () => {
  await using namespace = await openWithDevice();
  await namespace.command("ip", ["link", "set", "d0", "up"]);
  const { listed, again } = await run<{ listed: string[]; again: string }>(namespace, "addAddresses");
  const wanted = ["10.9.0.1/24", "10.9.1.1/32", "fd00:9::1/64", "fd00:9::2/128"];
  deepStrictEqual(listed.filter((text) => !text.startsWith("fe80")).toSorted(), wanted);
  const byIp = await ipAddresses(namespace);
  deepStrictEqual(byIp.filter((text) => !text.startsWith("fe80")).toSorted(), wanted);
  strictEqual(
    again,
    "DriverError: Cannot add the address 10.9.0.1/24 to d0: EEXIST (17): ipv4: Address already assigned",
  );
  const [{ addr_info }] = await namespace.ip<IpAddress>("addr", "show", "dev", "d0") as [IpAddress];
  const v6 = addr_info.filter(({ local }) => local.startsWith("fd00"));
  ok(v6.length === 2 && v6.every(({ tentative, nodad }) => tentative !== true && nodad === true));

  const removed = await run<{ listed: string[]; again: string }>(namespace, "removeAddresses");
  deepStrictEqual(removed.listed, []);
  match(
    removed.again,
    /^DriverError: Cannot remove the address 10\.9\.0\.1\/24 from d0: EADDRNOTAVAIL \(99\): ipv4: Address not found$/,
  );
  deepStrictEqual(await ipAddresses(namespace), []);
});

systemTest(
  "addRoute() sets metric, table, gateway and source, and its undo removes the route",
  NEEDS,
  async () => {
    await using namespace = await openWithDevice();
    await namespace.command("ip", ["link", "set", "d0", "up"]);
    await run(namespace, "addAddresses");
    const show = async (...words: string[]): Promise<Fields[]> => {
      const routes = await namespace.ip<Fields>(...words, "proto", "87");
      return pick(routes, "type", "dst", "gateway", "dev", "prefsrc", "metric");
    };
    type Listed = {
      destination: Fields;
      gateway?: string;
      source?: string;
      metric: number;
      table: number;
      index: number;
    };
    const seen = await run<Fields & { undo: string[]; listed: Listed[] }>(namespace, "addRoutes");
    deepStrictEqual(await show("route", "show", "table", "1000"), [
      { dst: "10.20.0.0/16", dev: "d0", metric: 77 },
      { type: "unreachable", dst: "192.0.2.0/24" },
    ]);
    deepStrictEqual(await show("route", "show"), [
      { dst: "default", gateway: "10.9.0.2", dev: "d0", prefsrc: "10.9.0.1", metric: 5 },
    ]);
    deepStrictEqual(await show("-6", "route", "show", "table", "70000"), [
      { dst: "fd01::/32", gateway: "fd00:9::5", dev: "d0", metric: 1024 },
    ]);
    deepStrictEqual(await show("-6", "route", "show"), [{ dst: "default", dev: "d0", metric: 9 }]);
    deepStrictEqual(
      seen.listed.map(({ destination, gateway, source, metric, table }) => ({
        ...destination,
        gateway,
        source,
        metric,
        table,
      })).toSorted((a, b) => a.table - b.table || a.metric - b.metric),
      [
        { address: "0.0.0.0", length: 0, gateway: "10.9.0.2", source: "10.9.0.1", metric: 5, table: 254 },
        { address: "::", length: 0, gateway: undefined, source: undefined, metric: 9, table: 254 },
        { address: "10.20.0.0", length: 16, gateway: undefined, source: undefined, metric: 77, table: 1000 },
        {
          address: "fd01::",
          length: 32,
          gateway: "fd00:9::5",
          source: undefined,
          metric: 1024,
          table: 70000,
        },
      ],
    );
    strictEqual(
      seen.again,
      "DriverError: Cannot add the route 10.20.0.0/16 metric 77 in table 1000 to d0: EEXIST (17)",
    );
    strictEqual(
      seen.badGateway,
      "DriverError: Cannot add the route 10.30.0.0/16 via 203.0.113.1 in table 7 to d0: ENETUNREACH (101): " +
        "Nexthop has invalid gateway",
    );
    match(
      seen.badPrefix as string,
      /^DriverError: Cannot add the route 10\.30\.0\.1\/16 to d0: EINVAL \(22\): /,
    );
    strictEqual((seen.to as Fields).gateway, "10.9.0.2");
    strictEqual((seen.to6 as Fields).index, seen.listed[0]!.index);

    deepStrictEqual(await run(namespace, "replay", ...seen.undo), { first: [], second: [] });
    deepStrictEqual(await show("route", "show", "table", "all"), []);
    deepStrictEqual(await show("-6", "route", "show", "table", "all"), []);
  },
);

systemTest("Netlink.routeTo() is undefined without a route", NEEDS, async () => {
  await using namespace = await openWithDevice();
  deepStrictEqual(await run(namespace, "noRoute"), { to: "none" });
});

systemTest("an undo leaves the route and the rule of another program alone", NEEDS, async () => {
  await using namespace = await openWithDevice();
  await namespace.command("ip", ["link", "set", "d0", "up"]);
  await namespace.command("ip", ["route", "add", "10.40.0.0/16", "dev", "d0"]);
  await namespace.command("ip", ["rule", "add", "table", "300", "priority", "300"]);
  const { route, rule, failures } = await run<Fields>(namespace, "strangers");
  match(route as string, /ESRCH \(3\)/);
  match(rule as string, /ENOENT \(2\)/);
  strictEqual(failures, 0);
  strictEqual((await namespace.ip("route", "show", "10.40.0.0/16")).length, 1);
  strictEqual((await namespace.ip("rule", "show", "priority", "300")).length, 1);
});

systemTest("addRule() sets every selector, and its undo removes the rule", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const show = async (family: string): Promise<Fields[]> =>
    (await namespace.ip<Fields>(family, "rule", "show")).filter(({ protocol }) => protocol === "87");
  const seen = await run<Fields & { undo: string[] }>(namespace, "addRules");
  const v4 = await show("-4");
  deepStrictEqual(v4.map(({ priority }) => priority), [98, 99, 100]);
  deepStrictEqual(
    pick(v4, "not", "src", "srclen", "dst", "dstlen", "iif", "fwmark", "table", "suppress_prefixlen"),
    [
      { src: "10.0.0.0", srclen: 8, dst: "10.1.0.0", dstlen: 16, iif: "lo", table: "7" },
      { src: "all", table: "main", suppress_prefixlen: 0 },
      { not: null, src: "all", fwmark: "0xca6c", table: "51820" },
    ],
  );
  const v6 = await show("-6");
  deepStrictEqual(pick(v6, "priority", "dst", "dstlen", "oif", "fwmark", "fwmask", "table"), [
    { priority: 96, dst: "fd00::", dstlen: 8, table: "9" },
    { priority: 97, oif: "d0", fwmark: "0x1", fwmask: "0xff", table: "8" },
  ]);
  deepStrictEqual(
    pick(seen.v4 as Fields[], "priority", "table", "not", "suppressPrefixLength", "fwmark", "iif"),
    [
      { priority: 98, table: 7, not: false, iif: "lo" },
      { priority: 99, table: 254, not: false, suppressPrefixLength: 0 },
      { priority: 100, table: 51820, not: true, fwmark: 0xca6c },
    ],
  );
  deepStrictEqual(pick(seen.v6 as Fields[], "priority", "to", "oif", "fwmark", "mask"), [
    { priority: 96, to: { address: "fd00::", length: 8 } },
    { priority: 97, oif: "d0", fwmark: 1, mask: 0xff },
  ]);
  deepStrictEqual(seen.free, [32765, 97]);
  strictEqual(
    seen.again,
    "DriverError: Cannot add the IPv4 rule 100: not from all fwmark 0xca6c lookup 51820: EEXIST (17)",
  );
  deepStrictEqual(await run(namespace, "replay", ...seen.undo), { first: [], second: [] });
  deepStrictEqual([...await show("-4"), ...await show("-6")], []);
});

systemTest("Netlink.rules() reads a dump of many datagrams", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const tables = await run<number[]>(namespace, "manyRules");
  deepStrictEqual(tables, [255, ...Array.from({ length: 200 }, (_, i) => 1001 + i), 254, 253]);
});

systemTest("Link.statistics are the kernel's counters", NEEDS, async () => {
  await using namespace = await openNamespace();
  await using peer = await openNamespace();
  await link({ namespace, name: "d0", addresses: ["10.1.0.1/24"] }, {
    namespace: peer,
    name: "d1",
    addresses: ["10.1.0.2/24"],
  });
  await namespace.command("ping", ["-c", "20", "-i", "0.01", "-s", "1000", "10.1.0.2"]);
  // No traffic from here on, so that both read the same counters.
  await peer.command("ip", ["link", "set", "d1", "down"]);
  const { byName } = await run<{ byName: { kind: string; statistics: Fields } }>(namespace, "link");
  const [{ stats64 }] = await namespace.ip<{ stats64: Record<string, Fields> }>(
    "-s",
    "link",
    "show",
    "dev",
    "d0",
  ) as [
    { stats64: { rx: Fields; tx: Fields } },
  ];
  strictEqual(byName.kind, "veth");
  deepStrictEqual(byName.statistics, {
    rxPackets: stats64.rx.packets,
    rxBytes: stats64.rx.bytes,
    rxDropped: stats64.rx.dropped,
    txPackets: stats64.tx.packets,
    txBytes: stats64.tx.bytes,
    txDropped: stats64.tx.dropped,
  });
  ok((byName.statistics.rxBytes as number) > 20 * 1000);
});

systemTest("LinkMonitor.drain() reports up, down, mtu and gone of its link only", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const { seen, absent } = await run<{ seen: unknown; absent: string }>(namespace, "monitor");
  deepStrictEqual(seen, [
    [],
    [],
    [{ kind: "up", mtu: 1500 }],
    [{ kind: "mtu", mtu: 1300 }],
    [{ kind: "mtu", mtu: 1400 }, { kind: "down", mtu: 1400 }],
    [{ kind: "gone", mtu: 1400 }],
    [],
  ]);
  strictEqual(absent, "NotFound: Cannot watch the link 9999: ENODEV (19)");
});

systemTest("LinkMonitor.drain() reports the state after an overrun", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const { count, last, after } = await run<Fields & { count: number }>(namespace, "overrun");
  ok(count < 4000, `${count} events: the queue did not overrun`);
  deepStrictEqual(last, [{ kind: "mtu", mtu: 1234 }, { kind: "up", mtu: 1234 }]);
  deepStrictEqual(after, [{ kind: "mtu", mtu: 1111 }]);
});

systemTest("without CAP_NET_ADMIN Netlink can query, and a change fails with the remedy", NEEDS, async () => {
  await using namespace = await openWithDevice();
  const deno = [
    Deno.execPath(),
    "run",
    "--quiet",
    "--no-prompt",
    "--allow-ffi",
    fileURLToPath(SCENARIOS),
    "unprivileged",
  ];
  const { stdout } = await namespace.command("setpriv", [
    "--bounding-set=-net_admin",
    "--inh-caps=-net_admin",
    ...deno,
  ]);
  deepStrictEqual(JSON.parse(stdout), {
    seen: "d0",
    refused:
      "PermissionDenied: Cannot set d0 to MTU 1400: EPERM (1): run as root, or grant CAP_NET_ADMIN to deno",
  });
});

systemTest("Netlink is a bad resource after close()", NEEDS, async () => {
  await using namespace = await openWithDevice();
  strictEqual(await run(namespace, "closed"), "BadResource: Cannot use netlink: it was closed");
});

systemTest(
  "LinuxHostRoutes need few requests among many routes, and follow only routes that cover their addresses",
  NEEDS,
  async () => {
    await using namespace = await openWithDevice();
    const { added, ...followed } = await run<Record<string, unknown>>(namespace, "hostRoutes");
    ok(Number(added) < 50, `${added} requests for two host routes among 500 routes`);
    deepStrictEqual(followed, {
      afterOwn: false,
      afterRoute: [false, true],
      afterOther: true,
      present: true,
    });
  },
);

systemTest(
  "LinuxHostRoutes bypass a later tunnel of another process, and leave one that ends",
  NEEDS,
  async () => {
    await using namespace = await openWithDevice();
    await namespace.command("ip", ["tuntap", "add", "d1", "mode", "tun"]);
    deepStrictEqual(await run(namespace, "otherTunnels"), {
      intoOther: [false, true],
      left: ["10.8.0.7/32", "10.8.0.8/32"],
    });
  },
);
