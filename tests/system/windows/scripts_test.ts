/** The scripts of scripts/ in deno.exe under Wine: they behave as on Linux. */

import assert from "node:assert/strict";
import { link, openNamespace } from "../../kit/system.ts";
import { wineTest } from "../../kit/wine.ts";
import { openWindowsLab, type WindowsLab } from "./lab.ts";

/** Checks that nothing is left, and no rule of wintun.h was broken. */
function assertClean({ counters, network }: WindowsLab): void {
  const { addresses, routes, dns } = network;
  assert.deepEqual({ addresses, routes, dns }, { addresses: [], routes: [], dns: [] });
  assert.equal(counters.misuses, 0, "misuses of wintun.h");
  assert.equal(counters.handlesOpen, 0, "adapters that were not closed");
  assert.equal(counters.sessionsEnded, counters.sessionsStarted);
  assert.equal(counters.unsentAtEnd, 0, "packets allocated and not sent");
  assert.equal(counters.releases, counters.delivered);
}

wineTest("scripts/icmp_echo.ts under Wine answers ping, and undoes its setup on Ctrl-C", async () => {
  await using lab = await openWindowsLab();
  await lab.join("*", lab.namespace, ["10.9.0.2/24", "fd09::2/64"]);
  const script = await lab.start("icmp_echo.ts", [], { env: { STAND_IN_LATE: "3" } });
  for (const address of ["10.9.0.77", "fd09::77"]) {
    const { stdout } = await lab.namespace.command("ping", ["-c", "20", "-i", "0.02", "-W", "5", address]);
    assert.match(stdout, / 0% packet loss/);
  }
  const { stdout } = await lab.namespace.command("ping", [
    "-c",
    "3",
    "-s",
    "1472",
    "-M",
    "do",
    "-W",
    "5",
    "10.9.0.7",
  ]);
  assert.match(stdout, / 0% packet loss/);
  assert.equal(lab.network.addresses.length, 2);
  const calls = lab.calls.map((line) => line.split(" ").slice(0, 2).join(" "));
  assert.ok(calls.filter((call) => call === "GetIpInterfaceEntry 1168").length >= 3, "it waited for the row");
  assert.equal(await script.interrupt(), 0, script.output);
  assertClean(lab);
}, ["ping"]);

wineTest("scripts/relay.ts under Wine carries ping and iperf3 between two namespaces", async () => {
  await using left = await openNamespace();
  await using right = await openNamespace();
  await using lab = await openWindowsLab();
  await lab.join("left", left, ["10.9.0.1/24"]);
  await lab.join("right", right, ["10.9.0.2/24"]);
  const script = await lab.start("relay.ts");
  const { stdout } = await left.command("ping", ["-c", "20", "-i", "0.02", "-W", "5", "10.9.0.2"]);
  assert.match(stdout, / 0% packet loss/);
  await using _server = right.spawn("iperf3", ["-s", "-1"], { stdout: "null", stderr: "null" });
  await right.command("sh", ["-c", "until ss -ltn | grep -q :5201; do sleep 0.05; done"]);
  const iperf = await left.command("iperf3", ["-c", "10.9.0.2", "-t", "3", "--json"]);
  const { end } = JSON.parse(iperf.stdout);
  const megabits = end.sum_received.bits_per_second / 1e6;
  console.log(`iperf3 through relay.ts under Wine: ${megabits.toFixed(0)} Mbit/s`);
  assert.ok(megabits > 1, `${megabits} Mbit/s`);
  assert.equal(await script.interrupt(), 0, script.output);
  assertClean(lab);
}, ["ping", "iperf3", "ss"]);

wineTest("scripts/watch.ts under Wine prints the packets that pass", async () => {
  await using lab = await openWindowsLab();
  await lab.join("*", lab.namespace, ["10.9.0.2/24"]);
  const script = await lab.start("watch.ts");
  await lab.namespace.command("ping", ["-c", "1", "-W", "1", "10.9.0.77"], { check: false });
  await script.said("10.9.0.2");
  assert.match(script.output, /> .*10\.9\.0\.2.*10\.9\.0\.77/);
  assert.equal(await script.interrupt(), 0, script.output);
  assertClean(lab);
}, ["ping"]);

for (
  const [name, far, permissions] of [
    ["plain_udp.ts", "udp://192.0.2.1:4500", ["--allow-ffi"]],
    ["websocket.ts", "ws://192.0.2.1:8080/", ["--allow-ffi", "--allow-net"]],
  ] as const
) {
  wineTest(`scripts/${name} works between Wine and Linux`, async () => {
    await using inside = await openNamespace();
    await using other = await openNamespace();
    await using lab = await openWindowsLab();
    await link(
      { namespace: lab.namespace, name: "wan", addresses: ["192.0.2.1/24"] },
      { namespace: other, name: "wan", addresses: ["192.0.2.2/24"] },
    );
    await lab.join("*", inside, ["10.9.0.1/24"]);
    const script = await lab.start(name, [], { permissions });
    const peer = other.spawn(
      Deno.execPath(),
      ["run", "--no-prompt", ...permissions, `scripts/${name}`, "--address", "10.9.0.2/24", "--far", far],
      { stdout: "null", stderr: "null" },
    );
    await other.command("sh", ["-c", "until ip -o -4 addr | grep -q 10.9.0.2; do sleep 0.05; done"]);
    // The first packet shows the listening side the address of its peer.
    await other.command("ping", ["-c", "20", "-i", "0.2", "-W", "1", "10.9.0.1"], { check: false });
    // With -w, ping waits for all replies; without, only twice the longest round trip for the last.
    const many = ["-c", "10", "-i", "0.05", "-w", "10"];
    const { stdout } = await other.command("ping", [...many, "10.9.0.1"]);
    assert.match(stdout, / 10 received/);
    const back = await inside.command("ping", [...many, "10.9.0.2"]);
    assert.match(back.stdout, / 10 received/);
    assert.equal(await script.interrupt(), 0, script.output);
    assertClean(lab);
    peer.kill();
    await peer.status;
  }, ["ping"]);
}
