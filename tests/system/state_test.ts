/** Addresses, routes and rules of an open device are restored when other programs remove them, or reported as lost. */

import assert from "node:assert/strict";
import { type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { Running } from "../kit/traffic.ts";

const NEEDS = { programs: ["ip"] };
const SCENARIO = new URL("./scenario.ts", import.meta.url).pathname;
const OPTIONS = {
  name: "t0",
  address: ["10.9.0.1/24", "fd09::1/64"],
  route: ["10.20.0.0/16", "fd20::/48", "10.30.0.0/16 metric 5 table 77", "10.40.0.0/16 via 10.9.0.2"],
  rule: [{ table: 77, from: "10.9.0.0/24" }, { table: 77, mark: 7, family: 6 as const }],
};
/** Poll interval and limit of a wait (milliseconds). */
const INTERVAL = 50;
const LIMIT = 10_000;

async function open(namespace: Namespace, options: unknown): Promise<Running> {
  const child = namespace.spawn(
    Deno.execPath(),
    ["run", "--quiet", "--no-check", "--allow-ffi", SCENARIO, "events", JSON.stringify(options)],
  );
  const running = new Running(child, child.stderr, child.stdout);
  await running.said(/ready/);
  return running;
}

/** Addresses except link-local ones, routes of every table, and rules. */
async function state(namespace: Namespace): Promise<unknown> {
  const show = async (...words: string[]) => {
    const { stdout } = await namespace.command("ip", words);
    return stdout.split("\n").map((line) => line.trim()).filter((line) =>
      !/fe80|ff00|local |broadcast /.test(line)
    )
      .sort();
  };
  return [
    ((await show("-o", "addr", "show", "dev", "t0")).filter((line) => /inet/.test(line))).map((line) =>
      /inet6? \S+/.exec(line)![0]
    ),
    await show("-4", "route", "show", "table", "all", "dev", "t0"),
    await show("-6", "route", "show", "table", "all", "dev", "t0"),
    await show("rule"),
    await show("-6", "rule"),
  ];
}

async function isAgain(namespace: Namespace, wanted: unknown, what: string): Promise<void> {
  const end = performance.now() + LIMIT;
  for (;;) {
    try {
      return assert.deepEqual(await state(namespace), wanted, what);
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, INTERVAL));
    }
  }
}

for (const kind of ["made", "prepared"]) {
  systemTest(`A device that was ${kind} restores what other programs remove`, NEEDS, async () => {
    await using namespace = await openNamespace();
    const ip = (...words: string[]) => namespace.command("ip", words);
    if (kind === "prepared") await ip("tuntap", "add", "t0", "mode", "tun");
    const rules = await namespace.ip("rule");
    await using device = await open(namespace, OPTIONS);
    const before = await state(namespace);
    const attacks: [string, string[][]][] = [
      ["down and up", [["link", "set", "t0", "down"], ["link", "set", "t0", "up"]]],
      ["addresses", [["addr", "flush", "dev", "t0", "scope", "global"]]],
      ["one address", [["addr", "del", "10.9.0.1/24", "dev", "t0"]]],
      ["a route", [["route", "del", "10.20.0.0/16"]]],
      ["an IPv6 route", [["-6", "route", "del", "fd20::/48"]]],
      ["a table's routes", [["route", "flush", "table", "77"]]],
      ["rules", [["rule", "del", "table", "77"], ["-6", "rule", "del", "table", "77"]]],
    ];
    for (const [what, commands] of attacks) {
      for (const words of commands) await ip(...words);
      await isAgain(namespace, before, what);
    }
    await device.said(/restored on "t0" after another program removed it: .*IPv4 rule/);
    const { heard } = await device.stop("SIGTERM");
    assert.match(heard, /"kind":"restored"/);
    assert.match(heard, /"t0" was set down: no packet passes/);
    assert.deepEqual(await namespace.ip("rule"), rules);
    if (kind === "prepared") {
      const [link] = await namespace.ip<{ addr_info: unknown[] }>("addr", "show", "dev", "t0");
      assert.deepEqual(link!.addr_info, []);
    }
  });
}

systemTest(
  "A route that another program removes again and again is reported as lost and stays removed",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await using device = await open(namespace, OPTIONS);
    for (let i = 0; !device.heard.includes("lost") && i < 100; i++) {
      await namespace.command("ip", ["route", "del", "10.20.0.0/16"], { check: false });
      await new Promise((resolve) => setTimeout(resolve, INTERVAL));
    }
    await device.said(
      /Cannot keep route 10\.20\.0\.0\/16 to t0 on "t0": other programs removed addresses, routes or rules 11 times within a minute/,
    );
    const { stdout } = await namespace.command("ip", ["route", "show", "10.20.0.0/16"]);
    assert.equal(stdout, "");
  },
);

systemTest("A report of many restored routes names only the first ones", NEEDS, async () => {
  await using namespace = await openNamespace();
  const route = Array.from({ length: 300 }, (_, i) => `10.${100 + (i >> 8)}.${i & 255}.0/24`);
  await using device = await open(namespace, { ...OPTIONS, route });
  await namespace.command("ip", ["link", "set", "t0", "down"]);
  await namespace.command("ip", ["link", "set", "t0", "up"]);
  await device.said(/restored on "t0" .*: .*10\.100\.\d+\.0\/24 to t0 and 29\d others\n/);
});

systemTest(
  "Rules are restored while a device is down, and addresses and routes once it is up",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await using device = await open(namespace, OPTIONS);
    const before = await state(namespace);
    await namespace.command("ip", ["link", "set", "t0", "down"]);
    await namespace.command("ip", ["rule", "del", "table", "77"]);
    await device.said(/restored .* IPv4 rule/);
    const [link] = await namespace.ip<{ flags: string[] }>("link", "show", "t0");
    assert.equal(link!.flags.includes("UP"), false, "it stays down");
    await namespace.command("ip", ["link", "set", "t0", "up"]);
    await isAgain(namespace, before, "down and up");
  },
);

systemTest(
  "A device's MTU and name follow the link, and an MTU other than the requested one is reported",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await using device = await open(namespace, { ...OPTIONS, mtu: 1400 });
    await namespace.command("ip", ["link", "set", "t0", "mtu", "1300"]);
    await device.said(/the MTU of "t0" was set to 1300: 1400 was requested/);
    await namespace.command("ip", ["link", "set", "t0", "down"]);
    await namespace.command("ip", ["link", "set", "t0", "name", "other"]);
    await namespace.command("ip", ["link", "set", "other", "up"]);
    await device.said(/restored on "other"/);
  },
);

systemTest(
  "A route whose address has bits beyond its prefix length is refused with the rule, before anything is made",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    for (
      const [route, network, host] of [
        ["10.0.0.1/8", "10.0.0.0/8", "10.0.0.1/32"],
        ["fd00::1/8", "fd00::/8", "fd00::1/128"],
      ]
    ) {
      const options = JSON.stringify({ name: "t0", address: "10.9.0.1/24", route });
      const args = ["run", "--quiet", "--no-check", "--allow-ffi", SCENARIO, "open", options];
      const { stdout } = await namespace.command(Deno.execPath(), args);
      const { thrown } = JSON.parse(stdout);
      assert.equal(thrown.name, "SyntaxError");
      assert.equal(
        thrown.message,
        `Cannot add a route: its address must have no bits beyond the prefix length, got ${route}: write ${network}, ` +
          `or ${host} for one host`,
      );
    }
  },
);
